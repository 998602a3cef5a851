"""The table and the figure of the rows that `benchmarks.learning` has written.

python -m benchmarks.learning.report docs/learning/search.csv --names default published --figure FILE.png
"""

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import mean, stdev

import matplotlib
import matplotlib.pyplot as plt
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from benchmarks.learning.rows import Row, read_rows, run
from ijepa.util.errors import UserError
from ijepa.util.files import replacing

TITLES = {"knn20": "k-NN", "logistic": "logistic", "linear": "probe", "labels10": "10 % of labels",
          "labels1": "1 %", "context_gain": "context gain"}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the table, and draws the figure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.learning.report", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("csv", type=Path, nargs="+")
    parser.add_argument("--names", nargs="+", metavar="NAME[=TITLE]", help="rows to show, in this order; default: all")
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--part", choices=("search", "report"), default="search")
    parser.add_argument("--figure", type=Path)
    values = parser.parse_args(arguments)
    rows = read(values.csv, values.data, values.part, values.names)
    print(table(rows))
    if values.figure:
        figure(rows, values.figure)


def read(files: Sequence[Path], data: str, part: str, names: Sequence[str] | None) -> list[Row]:
    """The rows of a data set and part, in the order of ``names``, by their titles."""
    rows: list[Row] = []
    for file in files:
        if not file.is_file():
            raise UserError(f"{file}: no such file; python -m benchmarks.learning writes it")
        rows += [row for row in read_rows(file) if (row["data"], row["part"]) == (data, part)]
    known = list(dict.fromkeys(row["name"] for row in rows))
    titles = {name: title or name for name, _, title in (name.partition("=") for name in names or known)}
    for name in titles:
        if name not in known:
            raise UserError(f"--names {name}: has no row; try {', '.join(known) or 'another file'}")
    rows.sort(key=lambda row: float(row["budget"]))
    return [{**row, "name": title} for name, title in titles.items() for row in rows if row["name"] == name]


def table(rows: Sequence[Row]) -> str:
    """Markdown: what each method reaches at the end of each budget; mean and standard deviation over seeds."""
    columns = [name for name in TITLES if any(row.get(name) for row in rows)]
    lines = ["| method | FLOPs | seeds | images | " + " | ".join(TITLES[name] for name in columns) + " |",
             "|---|---:|---:|---:|" + "---:|" * len(columns)]  # fmt: skip
    for (name, budget), found in _groups(row for row in rows if float(row["share"]) == 1).items():
        images = round(mean(float(row["images"]) for row in found) / 1000)
        cells = [_cell([float(row[column]) for row in found if row.get(column)]) for column in columns]
        lines.append(f"| {name} | {budget} | {len(found)} | {images}k | {' | '.join(cells)} |")
    return "\n".join(lines)


def _groups(rows: Iterable[Row]) -> dict[tuple[str, str], list[Row]]:
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["name"], row["budget"]), []).append(row)
    return groups


def _cell(values: list[float]) -> str:
    if not values:
        return ""
    digits = 1 if max(map(abs, values)) > 1 else 2
    spread = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{mean(values):.{digits}f}{spread}"


def figure(rows: Sequence[Row], file: Path) -> None:
    """Accuracy against compute (paper, figure 5): a thin line per run, a thick one through the ends of budgets."""
    matplotlib.use("Agg")
    shown, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    names = list(dict.fromkeys(row["name"] for row in rows))
    for axis, column in zip(axes, ("knn20", "logistic"), strict=True):
        for number, name in enumerate(names):
            color = plt.get_cmap("tab10" if len(names) <= 10 else "tab20")(number % 20)
            own = [row for row in rows if row["name"] == name and float(row["flops"]) > 0]
            runs: dict[tuple[str, str], list[Row]] = {}
            for row in own:
                runs.setdefault((row["budget"], row["seed"]), []).append(row)
            for points in runs.values():
                points.sort(key=lambda row: float(row["flops"]))
                axis.plot([float(row["flops"]) for row in points], [float(row[column]) for row in points], color=color,
                          alpha=0.35, linewidth=0.8)  # fmt: skip
            ends = sorted(
                (mean(float(row["flops"]) for row in group), mean(float(row[column]) for row in group))
                for group in _groups(row for row in own if float(row["share"]) == 1).values()
            )
            axis.plot(*zip(*ends, strict=True), "o-", color=color, label=name, markersize=4) if ends else None
            untrained = [float(row[column]) for row in rows if row["name"] == name and float(row["flops"]) == 0]
            if untrained:
                axis.axhline(mean(untrained), color=color, linestyle=":", label=name)
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0e}".replace("e+", "e")))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.set(xlabel="FLOPs of training", title=f"{TITLES[column]}, %")
        axis.grid(alpha=0.3)
    handles, labels = axes[0].get_legend_handles_labels()
    shown.legend(handles, labels, loc="outside right upper", frameon=False, fontsize="small")
    with replacing(file) as temporary:
        shown.savefig(temporary, dpi=110, format="png")
    plt.close(shown)


if __name__ == "__main__":
    run(main)
