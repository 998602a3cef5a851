"""The benchmark of learning: rows as they come, and none twice."""

import csv

import pytest

import benchmarks.learning.__main__ as benchmark
from benchmarks.learning import rows as row_files
from benchmarks.learning import training
from benchmarks.learning.__main__ import main
from benchmarks.learning.images import load
from benchmarks.learning.report import main as report
from ijepa.util.errors import UserError


@pytest.mark.integration
def test_rows_and_resume(tmp_path, capsys):
    file = tmp_path / "rows.csv"
    arguments = ["digits", "--methods", "no_prediction", "--name", "narrow", "--set", "model.width=24", "model.depth=2",
                 "data.batch_size=8", "--budgets", "5e9", "--csv", str(file)]  # fmt: skip
    main(arguments)
    with file.open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    assert [float(row["share"]) for row in rows] == [0.1, 0.25, 0.5, 1]
    assert {row["name"] for row in rows} == {"narrow"}
    assert float(rows[-1]["flops"]) == pytest.approx(5e9, rel=0.1)  # the schedule ends where the budget does
    images = [int(row["images"]) for row in rows]
    assert images == sorted(images)
    assert all(0 < float(row["knn20"]) < 100 and 0 < float(row["logistic"]) < 100 for row in rows)
    assert "model.width=24" in rows[0]["command"]
    assert all(row["context_gain"] and row["verdict"] for row in rows)
    capsys.readouterr()
    main(arguments)  # trains nothing
    assert capsys.readouterr().out == ""
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:3]))  # interrupted after two shares
    main(arguments)
    with file.open(newline="") as opened:
        again = list(csv.DictReader(opened))
    assert [(row["share"], row["knn20"]) for row in again] == [(row["share"], row["knn20"]) for row in rows]


@pytest.mark.integration
@pytest.mark.parametrize("method", ["ours", "supervised"])
def test_a_stopped_run_resumes(tmp_path, monkeypatch, method):
    """With checkpoints, its rows are those of a run that was not stopped."""
    small = ["digits", "--methods", method, "--name", "narrow", "--budgets", "2e9", "--shares", ".25", ".5", "--set",
             "model.width=24", "model.depth=2", "data.batch_size=8"]  # fmt: skip
    small += ["optimizer=adamw", "data.workers=0"] + (["objective.target_depths=[0,1]"] if method == "ours" else [])
    whole, parts, folder = tmp_path / "whole.csv", tmp_path / "parts.csv", tmp_path / "checkpoints"
    main([*small, "--csv", str(whole)])

    def stop(file, row, write=row_files.append_row):
        if row["share"] == "0.5":
            raise InterruptedError
        write(file, row)

    monkeypatch.setattr(benchmark, "append_row", stop)
    monkeypatch.setattr(training, "SAVED_EVERY", 0)  # after every step
    with pytest.raises(InterruptedError):
        main([*small, "--csv", str(parts), "--checkpoints", str(folder)])
    assert [row["share"] for row in row_files.read_rows(parts)] == ["0.25"]
    assert len(list(folder.iterdir())) == 1
    monkeypatch.undo()
    main([*small, "--csv", str(parts), "--checkpoints", str(folder)])
    assert not list(folder.iterdir())
    kept = [column for column in row_files.COLUMNS if column not in ("seconds", "command")]
    assert [[row[name] for name in kept] for row in row_files.read_rows(parts)] == [
        [row[name] for name in kept] for row in row_files.read_rows(whole)
    ]


def test_images_that_are_not_there(tmp_path):
    with pytest.raises(UserError, match="cifar10 needs --root"):
        load("cifar10", None, "search")
    with pytest.raises(UserError, match="no such folder"):
        load("cifar10", tmp_path / "missing", "search")
    with pytest.raises(UserError, match="--set needs --name"):
        main(["digits", "--set", "model.depth=2"])
    with pytest.raises(UserError, match="has 0 images in 0 folders, expected 50000 in 10"):
        load("cifar10", tmp_path, "search")


@pytest.mark.integration
def test_methods_that_it_is_compared_with(tmp_path):
    file = tmp_path / "rows.csv"
    methods = ["supervised", "random_init", "raw_pixels"]
    small = ["--set", "model.width=24", "model.depth=2", "data.batch_size=8", "--name", "narrow", "--budgets", "1e9"]
    for method in methods:
        main(["digits", "--methods", method, *small, "--name", method, "--shares", "1", "--csv", str(file)])
    with file.open(newline="") as opened:
        rows = {row["method"]: row for row in csv.DictReader(opened)}
    assert list(rows) == methods
    assert float(rows["supervised"]["flops"]) == pytest.approx(1e9, rel=0.1)
    assert float(rows["random_init"]["flops"]) == float(rows["raw_pixels"]["flops"]) == 0
    assert float(rows["raw_pixels"]["knn20"]) > 90  # of digits, aligned as they are
    assert all(row["verdict"] == "" for row in rows.values())  # they predict nothing


@pytest.mark.integration
def test_a_teacher_s_training_is_part_of_the_budget(tmp_path, monkeypatch):
    """And is not repeated when only the rest was stopped."""
    file, folder = tmp_path / "rows.csv", tmp_path / "checkpoints"
    small = ["digits", "--methods", "frozen", "--budgets", "2e10", "--teacher-share", ".25", "--shares", "1", "--set",
             "model.width=48", "model.depth=2", "objective.target_depths=[2,4]", "data.batch_size=8"]  # fmt: skip
    budgets, train = [], benchmark.train
    monkeypatch.setattr(benchmark, "train", lambda config, source, budget, *more, **options: (
        budgets.append(budget), train(config, source, budget, *more, **options)))  # fmt: skip
    main([*small, "--name", "one", "--csv", str(file), "--checkpoints", str(folder)])
    [row] = row_files.read_rows(file)
    assert float(row["flops"]) == pytest.approx(2e10, rel=0.1)
    assert budgets[0] == 5e9
    assert budgets[1] < 1.6e10
    main([*small, "--name", "two", "--csv", str(file), "--checkpoints", str(folder)])
    assert len(budgets) == 3
    assert row_files.read_rows(file)[1]["flops"] == row["flops"]


@pytest.mark.integration
def test_two_views(tmp_path):
    pytest.importorskip("lightly")
    file = tmp_path / "rows.csv"
    main(["digits", "--methods", "two_views", "--set", "model.width=24", "model.depth=2", "data.batch_size=8",
          "--name", "views", "--budgets", "1e9", "--shares", "1", "--csv", str(file)])  # fmt: skip
    with file.open(newline="") as opened:
        assert [row["method"] for row in csv.DictReader(opened)] == ["two_views"]


@pytest.mark.integration
def test_report(tmp_path, capsys):
    file, picture = tmp_path / "rows.csv", tmp_path / "figure.png"
    columns = ["name", "data", "part", "budget", "seed", "share", "images", "flops", "knn20", "logistic"]
    with file.open("w", newline="") as opened:
        writer = csv.writer(opened)
        writer.writerow(columns)
        for seed, accuracy in ((0, 40.0), (1, 42.0)):
            writer.writerow(["ours", "cifar10", "search", "1e+13", seed, 0.5, 20_000, 5e12, 30, 31])
            writer.writerow(["ours", "cifar10", "search", "1e+13", seed, 1, 40_000, 1e13, accuracy, 45])
        writer.writerow(["raw", "cifar10", "search", "1e+13", 0, 1, 0, 0, 33.3, 38])
        writer.writerow(["ours", "cifar10", "report", "1e+13", 0, 1, 40_000, 1e13, 99, 99])
    report([str(file), "--names", "raw", "ours", "--figure", str(picture)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[2:] == [
        "| raw | 1e+13 | 1 | 0k | 33.3 | 38.0 |",
        "| ours | 1e+13 | 2 | 40k | 41.0 ± 1.4 | 45.0 ± 0.0 |",
    ]
    assert picture.stat().st_size > 10_000
    with pytest.raises(UserError, match="--names mine: has no row; try ours, raw"):
        report([str(file), "--names", "mine"])
    with pytest.raises(UserError, match="no such file"):
        report([str(tmp_path / "other.csv")])
