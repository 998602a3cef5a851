"""The command `python -m ijepa.report RUN_DIR [RUN_DIR...]`, or SWEEP_DIR: writes an HTML page."""

import argparse
from pathlib import Path

from ijepa.report import text
from ijepa.report.page import render
from ijepa.report.reading import RunRecord, read
from ijepa.report.sweep import render as render_sweep
from ijepa.run_folder import RunFolder
from ijepa.run_folder.folder import REPORT
from ijepa.sweeps import jobs
from ijepa.util import commands
from ijepa.util.errors import ConfigError, UserError
from ijepa.util.files import write_text


def main(arguments: list[str] | None = None) -> int:
    """Writes the page; returns the exit code."""
    return commands.run(_parser(), _report, arguments)


def _report(arguments: argparse.Namespace) -> None:
    out = _output_file(arguments)
    folders: list[Path] = arguments.folders
    notes: list[str] = []
    runs: list[RunRecord] = []
    sweep = _sweep(folders[0]) if len(folders) == 1 else None
    if sweep is not None:
        page = render_sweep(sweep, arguments.title)
    else:
        folders, notes = _expand_sweeps(folders)
        runs = read(folders)
        page = render(runs, arguments.title)
    write_text(out, page)
    print(f"written  {text.name(out)} ({text.size(out.stat().st_size)})", flush=True)
    for note in notes:
        print(f"note: {note}", flush=True)
    for run in runs:
        for note in run.notes:
            print(f"note: {run.name}: {note}", flush=True)


def _sweep(folder: Path) -> jobs.Sweep | None:
    try:
        return jobs.read(folder.expanduser())
    except ValueError as error:
        raise UserError(str(error)) from None


def _expand_sweeps(folders: list[Path]) -> tuple[list[Path], list[str]]:
    """Replaces each sweep's folder by those of its started jobs; also returns notes about the other jobs."""
    run_folders: list[Path] = []
    notes: list[str] = []
    for folder in folders:
        sweep = _sweep(folder)
        if sweep is None:
            run_folders.append(folder)
            continue
        started = [job for job in sweep.jobs if RunFolder(job.folder).metrics.is_file()]
        if not started:
            raise ConfigError("RUN_DIR", text.name(folder), "a sweep without any started job")
        run_folders += [job.folder for job in started]
        notes += [f"{text.name(job.name)}: {job.error or job.status}" for job in sweep.jobs if job not in started]
    return run_folders, notes


def _parser() -> commands.Parser:
    parser = commands.Parser(
        commands.command_line("report"), description="Writes a self-contained HTML report of runs: docs/report.md."
    )
    parser.add_argument("folders", metavar="RUN_DIR", nargs="+", type=Path, help="folder of a run or of a sweep")
    default = f"default: {REPORT} in the run's folder; for several runs, in the current one"
    parser.add_argument("--out", type=Path, metavar="FILE", help=default)
    parser.add_argument("--title", help="default: the run's name, or the number of runs")
    return parser


def _output_file(arguments: argparse.Namespace) -> Path:
    if arguments.out is None:
        folders = {folder.expanduser().resolve(): folder.expanduser() for folder in arguments.folders}
        return next(iter(folders.values())) / REPORT if len(folders) == 1 else Path(REPORT)
    out: Path = arguments.out.expanduser()
    if out.is_dir():
        example = commands.typed(out / REPORT)
        raise ConfigError("--out", text.name(out), f"is a folder; give a file in it, e.g. {example}")
    if out.suffix.lower() not in (".html", ".htm"):
        raise ConfigError("--out", text.name(out), "should end in .html")
    return out
