"""The command line: Hydra's entry point, --help from the schema, one-line errors and exit codes."""

import argparse
import contextlib
import importlib
import io
import logging
import os
import re
import signal
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn, get_args

import hydra
from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel

from ijepa.cli import aliases, config_files, metrics, verbatim
from ijepa.cli.explain import explain
from ijepa.cli.loading import immediate_signals
from ijepa.config import COMBINED, EvaluateConfig, PredictConfig, StatisticsConfig, TrainConfig, VerifyConfig
from ijepa.config.checks import is_named_sections, possible_sections
from ijepa.config.custom import TARGET, Custom
from ijepa.config.trust import trusting
from ijepa.distributed.signals import install_sigint_handler, is_spawned_rank, run_in_worker
from ijepa.util import commands
from ijepa.util.errors import TOO_DEEP, UNWRITABLE, InterruptedRunError, UserError, show
from ijepa.util.paths import CONF, PACKAGE
from ijepa.util.signals import stopping_on_sigterm

PLUGINS = PACKAGE / "plugins"
SCHEMAS: dict[str, type[BaseModel]] = {
    "train": TrainConfig,
    "evaluate": EvaluateConfig,
    "predict": PredictConfig,
    "statistics": StatisticsConfig,
    "verify": VerifyConfig,
}
EXTRA_GROUPS = {"train": ["predictor"]}
"""Groups that a command's file does not name: model= chooses their option."""
COMMANDS_WITH_METRICS = ("train", "evaluate")
"""Commands whose --help lists metrics."""
WIDTH = 110
"""Characters per line in the list of options in --help."""


def main(name: str, job: Callable[[DictConfig], float | None]) -> None:
    """Runs ``job`` on the configuration ``conf/NAME.yaml`` with the overrides of the command line; exits on an error.

    Exit codes: 0; 2 and one line on stderr for errors that the user can fix; 128 + the signal that ended a run; 1 and a
    traceback for bugs.
    """
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # Hydra raises its errors instead of printing them
    _tolerate_closed_pipes()
    arguments = sys.argv[1:]
    overrides = [argument for argument in arguments if not argument.startswith("-")]
    install_sigint_handler()
    try:
        silence_lightning()
        with immediate_signals():
            _register_plugins()
        flags = _check_arguments(name)
        config_files.install(flags.overrides)
        overrides += flags.overrides
        if "--help" in arguments or "-h" in arguments:
            print(help_text(name, flags.overrides, flags.config_dir))
        else:
            _run(name, job)
    except (UserError, HydraException, OmegaConfBaseException) as error:
        print(f"error: {explain(error, overrides, SCHEMAS[name])}", file=sys.stderr)
        sys.exit(error.exit_code if isinstance(error, UserError) else UserError.exit_code)
    except RecursionError:
        print(f"error: {TOO_DEEP}", file=sys.stderr)
        sys.exit(UserError.exit_code)
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        where = f"{error.filename}: " if error.filename else ""
        print(f"error: {where}{error.strerror}; files written before are complete", file=sys.stderr)
        sys.exit(UserError.exit_code)
    except InterruptedRunError as error:
        if str(error):
            print(error, file=sys.stderr)
        # 0, because Lightning kills the first process when another one fails
        sys.exit(0 if is_spawned_rank() else 128 + error.signal)
    except KeyboardInterrupt:
        if not is_spawned_rank():
            print("interrupted", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)


class Output(io.TextIOWrapper):
    """Standard output that ignores closed pipes: in ``train.py | tee``, Ctrl-C also ends tee."""

    def write(self, text: str) -> int:
        with self._ignoring_closed_pipe():
            super().write(text)
        return len(text)

    def flush(self) -> None:
        with self._ignoring_closed_pipe():
            super().flush()

    @contextlib.contextmanager
    def _ignoring_closed_pipe(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())


def _tolerate_closed_pipes() -> None:
    """Makes stdout and stderr ignore closed pipes, and escape characters that cannot be encoded."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if type(stream) is io.TextIOWrapper:
            encoding, lines = stream.encoding, stream.line_buffering
            setattr(sys, name, Output(stream.detach(), encoding, "backslashreplace", line_buffering=lines))
        elif isinstance(stream, io.TextIOWrapper):  # in tests
            stream.reconfigure(errors="backslashreplace")


def _run(name: str, job: Callable[[DictConfig], float | None]) -> None:
    errors: list[Exception] = []
    main_process = os.getpid()

    def guarded(composed: DictConfig) -> float | None:
        try:
            silence_lightning()  # also in processes that a launcher has started
            with trusting(composed.get("trust") or []):
                if os.getpid() != main_process:
                    return run_in_worker(lambda: job(composed))
                with stopping_on_sigterm():
                    return job(composed)
        except Exception as error:
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                raise  # for the launcher to report
            errors.append(error)  # raised below: Hydra would print a line of its own
            return None

    hydra.main(version_base="1.3", config_path=str(CONF), config_name=name)(guarded)()
    if errors:
        raise errors[0]


def _check_arguments(name: str) -> argparse.Namespace:
    """Parses the command line; raises UserError where Hydra's parser would print its usage or misread an argument."""
    parser = get_args_parser()

    def raise_user_error(message: str) -> NoReturn:
        raise UserError(f"{message}; use key=value, -m for a sweep, or --help")

    parser.error = raise_user_error  # type: ignore[method-assign]
    flags = parser.parse_args()
    groups = {*COMBINED, *(path.name for path in CONF.iterdir() if path.is_dir())}
    upgraded = aliases.upgrade_arguments(sys.argv[1:], flags.config_dir, flags.config_name)
    sys.argv[1:] = verbatim.quote_texts(upgraded, SCHEMAS[name], groups, flags.multirun or _starts_sweep(upgraded))
    flags = parser.parse_args()
    if flags.run + flags.multirun + (flags.cfg is not None) > 1:
        raise UserError("give only one of --run, --multirun and --cfg")
    for override in OverridesParser.create().parse_overrides(flags.overrides):
        group, value = override.key_or_group, override.value()
        if not group:
            raise UserError(f"{override.input_line}: there is no key before the =")
        if group not in groups or override.is_delete() or override.is_sweep_override():
            continue
        if isinstance(value, list) and group not in COMBINED:
            several = ",".join(map(str, value))
            raise UserError(f"{override.input_line}: takes one option; for a sweep try -m {group}={several}")
        if not isinstance(value, str | list):
            options = "|".join(_options(CONF / group)) or "a file of yours in --config-dir"
            raise UserError(f"{override.input_line}: takes the name of an option; try {options}")
    return flags


def _starts_sweep(arguments: list[str]) -> bool:
    """Whether a sweep is started without -m: by an option of sweep=, or by Hydra's own key."""
    return any(re.match(r"\+*(sweep=|hydra\.mode=MULTIRUN)", argument) for argument in arguments)


def help_text(name: str, overrides: list[str], config_dir: str | None = None) -> str:
    """The text of --help: every key of ``conf/NAME.yaml``, its value under ``overrides``, and its meaning."""
    added = [] if config_dir is None else [f'hydra.searchpath=["file://{Path(config_dir).absolute()}"]']
    with initialize_config_dir(str(CONF), version_base="1.3"):
        composed = compose(name, [*overrides, *added])
    values = OmegaConf.to_container(composed, resolve=False)
    assert isinstance(values, dict)
    usage = f"{commands.command_line(name)} [key=value ...]      -m: a sweep over comma-separated values"
    lines = [usage, "", "Groups:"]
    defaults = OmegaConf.load(CONF / f"{name}.yaml").defaults
    groups = [*(key for item in defaults if isinstance(item, DictConfig) for key in item), *EXTRA_GROUPS.get(name, [])]
    lines += [line for group in sorted(CONF.iterdir()) if group.name in groups for line in _group_lines(group)]
    lines += ["", "Keys, their current values, and what they mean:", *_key_lines(SCHEMAS[name], values, "")]
    metric_lines = metrics.help_section(name == "train") if name in COMMANDS_WITH_METRICS else []
    return "\n".join([*lines, *metric_lines])


def _options(group: Path) -> list[str]:
    return [option.stem for option in sorted(group.glob("*.yaml")) if not option.stem.startswith("_")]


def _group_lines(group: Path) -> list[str]:
    """``GROUP=OPTION|OPTION``, wrapped."""
    text, start = "| ".join(_options(group)), f"  {group.name}="
    wrapped = textwrap.wrap(text, WIDTH, initial_indent=start, subsequent_indent=" " * len(start))
    return [line[: len(start)] + line[len(start) :].replace("| ", "|") for line in wrapped]


def _key_lines(schema: type[BaseModel], values: dict[Any, Any], prefix: str) -> list[str]:
    plain, sections = [], []
    described = {field.alias or name: field for name, field in schema.model_fields.items()}
    for name, field in described.items():
        value = values.get(name)
        if isinstance(value, dict) and not is_named_sections(field.annotation):
            section = _section(field.annotation, value)
            summary = (section.__doc__ or "").strip().splitlines()[0]
            sections += ["", f"{prefix}{name}: {summary}", *_key_lines(section, value, f"{prefix}{name}.")]
        else:
            text = (field.description or "").replace("\n", " ")
            plain.append(f"  {f'{prefix}{name}={show(value)}':<44} {text}")
    if schema.model_config.get("extra") == "allow":  # the user's own options
        for name, value in values.items():
            if name not in described and isinstance(value, dict) and TARGET in value:
                sections += ["", f"{prefix}{name}: a class of your own", *_key_lines(Custom, value, f"{prefix}{name}.")]
            elif name not in described:
                plain.append(f"  {prefix}{name}={show(value)}")
    return plain + sections


def _section(annotation: Any, value: dict[str, Any]) -> type[BaseModel]:
    """The schema of a section; if several are possible, the one with its ``name``."""
    fitting = [
        option
        for option in possible_sections(annotation, value)
        if "name" not in option.model_fields or value.get("name") in get_args(option.model_fields["name"].annotation)
    ]
    chosen: type[BaseModel] = fitting[0]
    return chosen


def _register_plugins() -> None:
    """Adds ijepa/plugins to the path, where Hydra looks for packages called hydra_plugins; registers what is ours."""
    if str(PLUGINS) not in sys.path:
        sys.path.append(str(PLUGINS))
        python_path = os.environ.get("PYTHONPATH")  # for the processes that launchers start
        os.environ["PYTHONPATH"] = os.pathsep.join([str(PLUGINS), *([python_path] if python_path else [])])
    sweeping = importlib.import_module("hydra_plugins.ijepa_sweeping")
    for plugin in (sweeping.Sweeper, sweeping.Optuna):
        Plugins.instance().register(plugin)
    # A config stored by a plugin hides a file of conf/ with the same name, so this file is stored in its place.
    search = OmegaConf.load(CONF / "hydra" / "sweeper" / "_optuna.yaml")
    ConfigStore.instance().store(group="hydra/sweeper", name="optuna", node=search, provider="ijepa")


def silence_lightning() -> None:
    """Silences Lightning's advice about hardware and data loaders, which this software configures itself."""
    for package in ("lightning.pytorch", "lightning.fabric"):  # the packages reset their own level when imported
        logging.getLogger(f"{package}.utilities.rank_zero").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric.utilities.distributed").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning")
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view")  # never changed in place here
