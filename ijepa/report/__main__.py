"""`python -m ijepa.report RUN_DIR [RUN_DIR...]`."""

import argparse
import sys
from pathlib import Path

from ijepa import commands
from ijepa.errors import ConfigError
from ijepa.files import write_text
from ijepa.report import text
from ijepa.report.page import render
from ijepa.report.reading import read

NAME = "report.html"


def main(arguments: list[str] | None = None) -> int:
    """Writes a page; returns the exit code."""
    return commands.run(_parser(), _report, arguments)


def _report(given: argparse.Namespace) -> None:
    out = _out(given)
    runs = read(given.folders)
    write_text(out, render(runs, given.title))
    print(f"written  {text.name(out)} ({text.size(out.stat().st_size)})", flush=True)
    for run in runs:
        for note in run.notes:
            print(f"note: {run.name}: {note}", flush=True)


def _parser() -> commands.Parser:
    parser = commands.Parser(
        "python -m ijepa.report", description="Runs as one HTML page that needs no network: docs/report.md."
    )
    parser.add_argument("folders", metavar="RUN_DIR", nargs="+", type=Path, help="a run's folder")
    parser.add_argument("--out", type=Path, metavar="FILE",
                        help=f"default: {NAME} in the run's folder; of several runs, in the current one")  # fmt: skip
    parser.add_argument("--title", help="default: the run's name, or how many runs there are")
    return parser


def _out(given: argparse.Namespace) -> Path:
    if given.out is None:
        folders = {folder.expanduser().resolve(): folder.expanduser() for folder in given.folders}
        return next(iter(folders.values())) / NAME if len(folders) == 1 else Path(NAME)
    out: Path = given.out.expanduser()
    if out.is_dir():
        raise ConfigError(
            "--out", text.name(out), f"is a folder; give a file in it, {text.name(out / NAME)} for example"
        )
    if out.suffix.lower() not in (".html", ".htm"):
        raise ConfigError("--out", text.name(out), "should end in .html")
    return out


if __name__ == "__main__":
    sys.exit(main())
