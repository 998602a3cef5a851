"""The command line: Hydra's entry point, help from the schema, one line and an exit code for errors."""

import argparse
import contextlib
import importlib
import io
import logging
import os
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

from ijepa.cli import aliases, metrics
from ijepa.cli.explain import explain
from ijepa.config import COMBINED, EvaluateConfig, StatisticsConfig, TrainConfig
from ijepa.config.checks import is_named_sections, sections_for
from ijepa.config.custom import TARGET, Custom
from ijepa.distributed.signals import before_a_run, is_spawned_rank, run_in_worker
from ijepa.util import commands
from ijepa.util.errors import UNWRITABLE, InterruptedRunError, UserError, show
from ijepa.util.paths import CONF, PACKAGE

PLUGINS = PACKAGE / "plugins"
SCHEMAS: dict[str, type[BaseModel]] = {"train": TrainConfig, "evaluate": EvaluateConfig, "statistics": StatisticsConfig}
METERED = ("train", "evaluate")
"""Commands that have results."""
WIDTH = 110
"""Of the list of options in --help."""


def main(name: str, job: Callable[[DictConfig], float | None]) -> None:
    """Runs ``job`` on the configuration ``conf/NAME.yaml`` as the command line changes it, then exits.

    Exit codes: 0; 2 for what the user got wrong, in one line on stderr; 128 + the signal that ended a run; 1 with a
    traceback for faults of the software.
    """
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # Hydra raises its errors instead of printing them
    _outlive_readers()
    arguments = sys.argv[1:]
    overrides = [argument for argument in arguments if not argument.startswith("-")]
    before_a_run()
    try:
        _quiet()
        with importing():
            _register_plugins()
        flags = _check_arguments()
        overrides += flags.overrides
        if "--help" in arguments or "-h" in arguments:
            print(help_text(name, flags.overrides, flags.config_dir))
        else:
            _run(name, job)
    except (UserError, HydraException, OmegaConfBaseException) as error:
        print(f"error: {explain(error, overrides, SCHEMAS[name])}", file=sys.stderr)
        sys.exit(error.exit_code if isinstance(error, UserError) else UserError.exit_code)
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        where = f"{error.filename}: " if error.filename else ""
        print(f"error: {where}{error.strerror}; files written before are complete", file=sys.stderr)
        sys.exit(UserError.exit_code)
    except InterruptedRunError as error:
        if str(error):
            print(error, file=sys.stderr)
        sys.exit(
            0 if is_spawned_rank() else 128 + error.signal
        )  # Lightning kills the first process when another one fails
    except KeyboardInterrupt:
        if not is_spawned_rank():
            print("interrupted", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Ctrl-C ends the process plainly: from within imports of others, an exception can get lost."""
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGINT, before)


class Output(io.TextIOWrapper):
    """Standard output for which it is no error when nobody reads on: Ctrl-C also ends the tee of ``train.py | tee``."""

    def write(self, text: str) -> int:
        with self._outliving():
            super().write(text)
        return len(text)

    def flush(self) -> None:
        with self._outliving():
            super().flush()

    @contextlib.contextmanager
    def _outliving(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())


def _outlive_readers() -> None:
    """Also prints names of any bytes, escaped where they are no text."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if type(stream) is io.TextIOWrapper:
            encoding, lines = stream.encoding, stream.line_buffering
            setattr(sys, name, Output(stream.detach(), encoding, "backslashreplace", line_buffering=lines))
        elif isinstance(stream, io.TextIOWrapper):  # a test's
            stream.reconfigure(errors="backslashreplace")


def _run(name: str, job: Callable[[DictConfig], float | None]) -> None:
    faults: list[Exception] = []
    here = os.getpid()

    def guarded(composed: DictConfig) -> float | None:
        try:
            _quiet()  # also in a process of its own that a launcher has started
            return job(composed) if os.getpid() == here else run_in_worker(lambda: job(composed))
        except Exception as fault:
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                raise  # for the launcher to report
            faults.append(fault)  # past Hydra, which would announce it in a line of its own
            return None

    hydra.main(version_base="1.3", config_path=str(CONF), config_name=name)(guarded)()
    if faults:
        raise faults[0]


def _check_arguments() -> argparse.Namespace:
    """The command line, parsed; refuses what Hydra's own parser would answer with its usage, or silently misread."""
    parser = get_args_parser()

    def refuse(message: str) -> NoReturn:
        raise UserError(f"{message}; use key=value, -m for a sweep, or --help")

    parser.error = refuse  # type: ignore[method-assign]
    flags = parser.parse_args()
    sys.argv[1:] = aliases.expanded(sys.argv[1:], flags.config_dir, flags.config_name)
    flags = parser.parse_args()
    if flags.run + flags.multirun + (flags.cfg is not None) > 1:
        raise UserError("give only one of --run, --multirun and --cfg")
    groups = {*COMBINED, *(path.name for path in CONF.iterdir() if path.is_dir())}
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


def help_text(name: str, overrides: list[str], config_dir: str | None = None) -> str:
    """Every key of ``conf/NAME.yaml`` with its value, as ``overrides`` leave it, and its meaning."""
    added = [] if config_dir is None else [f'hydra.searchpath=["file://{Path(config_dir).absolute()}"]']
    with initialize_config_dir(str(CONF), version_base="1.3"):
        composed = compose(name, [*overrides, *added])
    values = OmegaConf.to_container(composed, resolve=False)
    assert isinstance(values, dict)
    lines = [f"{commands.typed(name)} [key=value ...]      -m: a sweep over comma-separated values", "", "Groups:"]
    shown = [*SCHEMAS[name].model_fields, *(["experiment", "sweep"] if name == "train" else [])]
    lines += [line for group in sorted(CONF.iterdir()) if group.name in shown for line in _choices(group)]
    lines += ["", "Keys, their current values, and what they mean:", *_rows(SCHEMAS[name], values, "")]
    return "\n".join([*lines, *(metrics.listed(name == "train") if name in METERED else [])])


def _options(group: Path) -> list[str]:
    return [option.stem for option in sorted(group.glob("*.yaml")) if not option.stem.startswith("_")]


def _choices(group: Path) -> list[str]:
    """``GROUP=OPTION|OPTION``, in as many lines as that takes."""
    text, start = "| ".join(_options(group)), f"  {group.name}="
    wrapped = textwrap.wrap(text, WIDTH, initial_indent=start, subsequent_indent=" " * len(start))
    return [line[: len(start)] + line[len(start) :].replace("| ", "|") for line in wrapped]


def _rows(schema: type[BaseModel], values: dict[Any, Any], prefix: str) -> list[str]:
    plain, sections = [], []
    described = {field.alias or name: field for name, field in schema.model_fields.items()}
    for name, field in described.items():
        value = values.get(name)
        if isinstance(value, dict) and not is_named_sections(field.annotation):
            section = _section(field.annotation, value)
            summary = (section.__doc__ or "").strip().splitlines()[0]
            sections += ["", f"{prefix}{name}: {summary}", *_rows(section, value, f"{prefix}{name}.")]
        else:
            text = (field.description or "").replace("\n", " ")
            plain.append(f"  {f'{prefix}{name}={show(value)}':<44} {text}")
    if schema.model_config.get("extra") == "allow":  # options of the user's own
        for name, value in values.items():
            if name not in described and isinstance(value, dict) and TARGET in value:
                sections += ["", f"{prefix}{name}: a class of your own", *_rows(Custom, value, f"{prefix}{name}.")]
            elif name not in described:
                plain.append(f"  {prefix}{name}={show(value)}")
    return plain + sections


def _section(annotation: Any, value: dict[str, Any]) -> type[BaseModel]:
    """The schema of a node; where several are possible, the one of its name."""
    fitting = [
        option
        for option in sections_for(annotation, value)
        if "name" not in option.model_fields or value.get("name") in get_args(option.model_fields["name"].annotation)
    ]
    chosen: type[BaseModel] = fitting[0]
    return chosen


def _register_plugins() -> None:
    """Hydra takes plugins from packages called hydra_plugins alone, and looks for them when it is first used."""
    if str(PLUGINS) not in sys.path:
        sys.path.append(str(PLUGINS))
        found = os.environ.get("PYTHONPATH")  # for the processes that launchers start
        os.environ["PYTHONPATH"] = os.pathsep.join([str(PLUGINS), *([found] if found else [])])
    sweeping = importlib.import_module("hydra_plugins.ijepa_sweeping")
    for plugin in (sweeping.Sweeper, sweeping.Optuna):
        Plugins.instance().register(plugin)
    # Hydra takes no file of conf/ that is called as what a plugin has stored: this one takes its place.
    search = OmegaConf.load(CONF / "hydra" / "sweeper" / "_optuna.yaml")
    ConfigStore.instance().store(group="hydra/sweeper", name="optuna", node=search, provider="ijepa")


def _quiet() -> None:
    """Silences what Lightning tells about hardware and loaders, which this software decides itself."""
    for package in ("lightning.pytorch", "lightning.fabric"):  # the packages reset their own level when imported
        logging.getLogger(f"{package}.utilities.rank_zero").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric.utilities.distributed").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning")
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view")  # never changed in place here
