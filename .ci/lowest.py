"""Prints the lowest versions that pyproject.toml allows, as pip's constraints; for `make test-lowest`.

Only of what a user installs: development tools are the newest that fit.
"""

import re
import tomllib
from pathlib import Path

USED_BY_USERS = ("parquet", "onnx")
ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for requirement in [*project["dependencies"], *(each for extra in USED_BY_USERS for each in extras[extra])]:
        name, floor = re.fullmatch(r"([\w-]+)>=([\w.]+)(?:,<[\w.]+)?", requirement).groups()
        print(f"{name}=={floor}")


if __name__ == "__main__":
    main()
