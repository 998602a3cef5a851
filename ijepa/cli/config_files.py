"""The files that Hydra composes, those in --config-dir for one: each is checked before its YAML is read."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import yaml  # type: ignore[import-untyped]
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.sources_registry import SourcesRegistry
from hydra.plugins.config_source import ConfigResult
from omegaconf import DictConfig, OmegaConf

from ijepa.util.errors import UserError
from ijepa.util.paths import CONF
from ijepa.util.reading import check_regular, check_yaml, yaml_problem


class CheckedFiles(FileConfigSource):
    """Hydra's folders, whose files are checked."""

    def load_config(self, config_path: str) -> ConfigResult:
        """The contents of a file.

        Raises:
            UserError: if it is no configuration, or one that would take all memory or stack.
        """
        file = Path(self.path) / self._normalize_file_name(config_path)
        if not file.is_file() or file.resolve().is_relative_to(CONF):
            return super().load_config(config_path)
        with _one_line_errors(file):
            _check(file)
            result = super().load_config(config_path)
            _check_mapping(result.config)
        return result


def install() -> None:
    """Makes Hydra read files by `CheckedFiles`."""
    SourcesRegistry.instance().types[FileConfigSource.scheme()] = CheckedFiles


def load(file: Path) -> DictConfig:
    """A configuration that Hydra will compose; raises UserError if it cannot be read."""
    with _one_line_errors(file):
        _check(file)
        return _check_mapping(OmegaConf.load(file))


def _check(file: Path) -> None:
    check_regular(file)
    check_yaml(file.read_text(encoding="utf-8"))


def _check_mapping(values: object) -> DictConfig:
    if not isinstance(values, DictConfig):
        raise ValueError("not a configuration: give keys and values")
    return values


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
