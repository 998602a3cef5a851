"""The files that Hydra composes, those in --config-dir for one: each is checked before its YAML is read.

The configuration of a run may be foreign: it refers to nothing, and names only classes whose package is trusted.
"""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.plugins.config_source import ConfigResult
from omegaconf import DictConfig, OmegaConf

from ijepa.config.trust import check_targets, package_names, trusting
from ijepa.run_folder.config import as_text, has_own_defaults, is_written_by_run
from ijepa.run_folder.outputs import is_in_run
from ijepa.util.errors import UserError
from ijepa.util.paths import CONF
from ijepa.util.reading import check_yaml, read_text, yaml_problem


class CheckedFiles(FileConfigSource):
    """Hydra's folders, whose files are checked."""

    def load_config(self, config_path: str) -> ConfigResult:
        """The contents of a file.

        Raises:
            UserError: if it is no configuration, or one that would take all memory or stack; or that of a run, and it
                names a class whose package is not trusted, or what Hydra shall read.
        """
        file = Path(self.path) / self._normalize_file_name(config_path)
        if not file.is_file() or file.resolve().is_relative_to(CONF):
            return super().load_config(config_path)
        with _one_line_errors(file):
            _check(file)
            result = super().load_config(config_path)
            values = _check_mapping(result.config)
            if self._is_of_run(file):
                result.config = _foreign(values, file)
        return result

    def _is_of_run(self, file: Path) -> bool:
        """Whether a run has written a file, or it lies in a run's folder."""
        root = Path(self.path)
        around = [folder for folder in file.parents if folder.is_relative_to(root)]
        return is_written_by_run(read_text(file)) or any(map(is_in_run, around))


CheckedFiles.__name__ = FileConfigSource.__name__
"""In a launcher's processes Hydra registers its own source after this one, and leaves one of the same name alone."""


def install(overrides: Sequence[str]) -> None:
    """Makes Hydra read files by `CheckedFiles`; ``overrides``: of the command line, where trust= may be.

    The registry keeps what is trusted, since launchers take it along to other processes, which read the files again.
    """
    typed = [
        each.value()
        for each in OverridesParser.create().parse_overrides(list(overrides))
        if each.key_or_group == "trust" and not each.is_delete() and not each.is_sweep_override()
    ]
    registry: Any = SourcesRegistry.instance()
    registry.types[FileConfigSource.scheme()] = CheckedFiles
    registry.trusted = list(package_names(typed[-1] or [])) if typed else []


def load(file: Path) -> DictConfig:
    """A configuration that Hydra will compose; raises UserError if it cannot be read."""
    with _one_line_errors(file):
        _check(file)
        return _check_mapping(OmegaConf.load(file))


def _check(file: Path) -> None:
    check_yaml(read_text(file))


def _check_mapping(values: object) -> DictConfig:
    if not isinstance(values, DictConfig):
        raise ValueError("not a configuration: give keys and values")
    return values


def _foreign(values: DictConfig, file: Path) -> DictConfig:
    """The configuration of a run, of which Hydra resolves nothing, and which names only trusted classes."""
    if "hydra" in values or not has_own_defaults(values):
        key = "hydra" if "hydra" in values else "defaults"
        problem = f"the configuration of a run, but its {key} are not those that a run writes"
        raise UserError(f"{file}: {problem}; if it is your own, move it out of the run and remove its first comments")
    plain = as_text(values)
    with trusting(getattr(SourcesRegistry.instance(), "trusted", [])):
        check_targets(plain, file)
    return OmegaConf.create({**plain, **({"trust": []} if "trust" in plain else {})})


@contextlib.contextmanager
def _one_line_errors(file: Path) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except UnicodeDecodeError:
        raise UserError(f"{file}: not valid YAML: not UTF-8") from None
    except yaml.YAMLError as error:  # such as a key that is there twice
        raise UserError(f"{file}: {yaml_problem(error)}") from None
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}") from None
    except Exception as error:  # whatever the parser makes of a value
        raise UserError(f"{file}: {str(error).splitlines()[0]}") from None
