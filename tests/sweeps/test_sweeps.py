"""Sweeps as a user starts them: folders, tables, what is skipped and resumed, Optuna and the launchers."""

import csv
import json
import re
import shutil

import pytest
from helpers import DIGITS, ROOT, command, listed

from benchmarks import ablations
from ijepa.report import command as report
from ijepa.run_folder import SweepFolder
from ijepa.sweeps import jobs, metric, table

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def square(tmp_path_factory):
    """A finished sweep of two by two, and what it said."""
    folder = tmp_path_factory.mktemp("sweeps") / "square"
    result = command("train.py", "-m", *DIGITS, "optimizer.lr=1e-3,3e-4", "seed=0,1", f"run_dir={folder}")
    assert result.returncode == 0, result.stderr
    return folder, result.stdout


def test_two_by_two(square):
    folder, said = square
    rows = listed(folder)
    assert [row["job"] for row in rows] == [
        "optimizer.lr-0.001_seed-0", "optimizer.lr-0.001_seed-1", "optimizer.lr-0.0003_seed-0",
        "optimizer.lr-0.0003_seed-1",
    ]  # fmt: skip
    assert all(row["status"] == "finished" and row["error"] == "" for row in rows)
    for row in rows:
        summary = json.loads((folder / row["job"] / "summary.json").read_text())
        assert float(row["knn5"]) == summary["results"]["target encoder"]["knn5"] == float(row["headline"])
        assert float(row["loss"]) == summary["loss"]
        assert list(summary["results"]) == ["target encoder"]
    assert "4 jobs, the best mean headline first" in said
    assert f"{SweepFolder(folder).table}" in said


def test_means_over_seeds(square):
    folder, _ = square
    with SweepFolder(folder).over_seeds.open(newline="") as file:
        means = list(csv.DictReader(file))
    assert [(row["optimizer.lr"], row["seeds"]) for row in means] == [("0.001", "2"), ("0.0003", "2")]
    values = [float(row["loss"]) for row in listed(folder)[:2]]
    assert float(means[0]["loss"]) == pytest.approx(sum(values) / 2, rel=1e-12)
    # Student's t of one degree of freedom; the standard error of two numbers is half their distance
    assert float(means[0]["loss +-"]) == pytest.approx(12.7062047 * abs(values[0] - values[1]) / 2, rel=1e-6)


def test_a_sweep_started_again_skips_what_is_finished_and_resumes_what_is_not(invoke, square, tmp_path):
    folder = tmp_path / "sweep"
    shutil.copytree(square[0], folder)
    whole = listed(folder)
    for name in ("summary.json", "encoder.safetensors"):  # a run stopped after its last step
        (folder / "optimizer.lr-0.001_seed-1" / name).unlink()
    shutil.rmtree(folder / "optimizer.lr-0.0003_seed-0")  # and one that never began
    rest = folder / "optimizer.lr-0.0003_seed-1"  # and one without a checkpoint
    shutil.rmtree(rest / "checkpoints")
    (rest / "summary.json").unlink()
    code, said, error = invoke("train.py", "-m", *DIGITS, "optimizer.lr=1e-3,3e-4", "seed=0,1", f"run_dir={folder}")
    assert code == 0, error
    assert said.count("job finished already") == 1
    for before, after in zip(whole, listed(folder), strict=True):
        assert float(after["loss"]) == pytest.approx(float(before["loss"]), rel=1e-6)  # the fixture had other threads
        changing = ("loss", "seconds")
        assert [after[key] for key in after if key not in changing] == [
            before[key] for key in before if key not in changing
        ]


def test_a_job_of_another_sweep_in_its_folder(invoke, square, tmp_path):
    folder = tmp_path / "sweep"
    shutil.copytree(square[0], folder)
    code, _, error = invoke("train.py", "-m", *DIGITS, "optimizer.lr=1e-3", "seed=0,1", f"run_dir={folder}",
                            "schedule.warmup_steps=0")  # fmt: skip
    assert code == 0, error  # its jobs are called seed-0 and seed-1
    code, _, error = invoke("train.py", "-m", *DIGITS, "optimizer.lr=1e-3,3e-4", "seed=0,1", f"run_dir={folder}",
                            "schedule.warmup_steps=0")  # fmt: skip
    assert code == 2
    assert "contains a run with schedule.warmup_steps=1, not 0; give another run_dir, or remove it" in error
    assert error.splitlines()[-1] == "error: 4 of 4 jobs failed"


def test_optuna_searches_in_the_metric_s_direction(invoke, tmp_path):
    search = ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=5", "metric=train/loss", f"run_dir={tmp_path}",
              "optimizer.lr=tag(log,interval(1e-4,1e-2))", "model.patch_size=4,5"]  # fmt: skip
    code, _, error = invoke("train.py", "-m", *DIGITS, *search)
    assert code == 2
    rows = listed(tmp_path)
    assert len(rows) == 5
    failed = [row for row in rows if row["status"] == "failed"]
    assert 0 < len(failed) < 5
    assert all("model.patch_size=5: does not divide" in row["error"] for row in failed)
    lines = error.splitlines()
    assert len(lines) == len(failed) + 1  # one line each
    assert lines[-1] == f"error: {len(failed)} of 5 jobs failed"
    best = min(float(row["train/loss"]) for row in rows if row["train/loss"])
    assert f"best_value: {best}" in (tmp_path / "optimization_results.yaml").read_text()
    code, again, error = invoke("train.py", "-m", *DIGITS, *search)
    assert again.count("job finished already") == 5 - len(failed)
    assert listed(tmp_path) == rows


@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_launchers(launcher, tmp_path):
    result = command("train.py", "-m", *DIGITS, "model.patch_size=4,5", "seed=0,1", f"hydra/launcher={launcher}",
                     f"run_dir={tmp_path}")  # fmt: skip
    assert result.returncode == 2, result.stderr
    rows = listed(tmp_path)
    assert [row["status"] for row in rows] == ["finished", "finished", "failed", "failed"]
    assert all("model.patch_size=5: does not divide" in row["error"] for row in rows[2:])
    assert result.stderr.splitlines()[-1] == "error: 2 of 4 jobs failed"


def test_auto_begins_goes_on_and_ends(invoke, tmp_path):
    folder = tmp_path / "run"
    code, said, error = invoke("train.py", *DIGITS, "resume=auto", f"run_dir={folder}")
    assert code == 0, error
    code, said, error = invoke("train.py", *DIGITS, "resume=auto", f"run_dir={folder}")
    hint = f"For other tasks: python evaluate.py checkpoint={folder} task=..."
    assert (code, said) == (0, f"run_dir {folder}: finished already; nothing is trained or evaluated. {hint}\n")
    code, _, error = invoke("train.py", *DIGITS, "resume=auto")
    assert (code, error) == (2, "error: resume=auto: resumes the run in run_dir; add run_dir=FOLDER\n")


def test_runs_that_go_on_as_a_sweep(invoke, square, tmp_path):
    """They stay in their folders; the table knows them."""
    runs = [tmp_path / name for name in ("a", "b")]
    for run, job in zip(runs, ("optimizer.lr-0.001_seed-0", "optimizer.lr-0.001_seed-1"), strict=True):
        shutil.copytree(square[0] / job, run)
        (run / "summary.json").unlink()
    code, _, error = invoke("train.py", "-m", f"resume={runs[0]},{runs[1]}", f"hydra.sweep.dir={tmp_path / 'sweep'}")
    assert code == 0, error
    folder = tmp_path / "sweep"
    assert [(row["job"], row["status"]) for row in listed(folder)] == [("a", "finished"), ("b", "finished")]
    assert [job.folder for job in jobs.read(folder).jobs] == runs


def test_a_slurm_that_takes_no_jobs(invoke, tmp_path, monkeypatch):
    sweep = ("-m", *DIGITS, "hydra/launcher=submitit_slurm", "seed=0,1", f"run_dir={tmp_path / 'sweep'}")
    monkeypatch.setenv("PATH", str(tmp_path))
    code, _, error = invoke("train.py", *sweep)
    assert code == 2
    assert error.splitlines()[0] == (
        "error: job 0 (seed=0): hydra/launcher=submitit_slurm: srun is not installed here; try submitit_local"
    )
    for name in ("srun", "sbatch"):
        (tmp_path / name).write_text("#!/bin/sh\necho 'sbatch: error: invalid partition specified: x' >&2\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    code, _, error = invoke("train.py", *sweep)
    assert code == 2
    assert "Traceback" not in error
    told = "hydra/launcher=submitit_slurm: sbatch rejects the job: error: invalid partition specified: x"
    assert error.splitlines()[-2:] == [f"error: job 1 (seed=1): {told}", "error: 2 of 2 jobs failed"]


def test_a_key_that_is_given_once_more_as_a_sweep(invoke, tmp_path):
    """Its jobs have folders of their own."""
    code, _, error = invoke("train.py", "-m", *DIGITS, "seed=0", "seed=1,2", f"run_dir={tmp_path}")
    assert code == 0, error
    assert [(row["seed"], row["status"]) for row in listed(tmp_path)] == [("1", "finished"), ("2", "finished")]


@pytest.mark.parametrize("key", ["run_dir", "sweep"])
def test_what_cannot_be_swept(invoke, tmp_path, key):
    code, _, error = invoke("train.py", "-m", *DIGITS, f"{key}=lr,masking", f"hydra.sweep.dir={tmp_path}")
    assert (code, error) == (2, f"error: {key}=...: is the same for all jobs of a sweep; give a single value\n")


def test_means_of_a_metric_that_is_no_result(square):
    sweep = jobs.read(square[0])
    sweep.metric = "train/loss"
    losses = [metric.last_value("train/loss", job.folder) for job in sweep.jobs]
    assert [group.results["train/loss"][0] for group in table.over_seeds(sweep)] == pytest.approx(
        [sum(losses[:2]) / 2, sum(losses[2:]) / 2], rel=1e-12
    )


def test_a_report_of_a_sweep(square, tmp_path, capsys):
    folder = tmp_path / "sweep"
    shutil.copytree(square[0], folder)
    shutil.rmtree(folder / "optimizer.lr-0.0003_seed-1")
    assert report.main([str(folder)]) == 0
    page = (folder / "report.html").read_text()
    assert "3 of 4 jobs finished" in page
    drawn = json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])
    assert [column["name"] for column in drawn["columns"][:3]] == ["optimizer.lr", "seed", "headline"]
    rows = listed(square[0])
    assert [job["values"][:2] for job in drawn["jobs"]] == [
        [float(row["optimizer.lr"]), float(row["seed"])] for row in rows
    ]
    assert [job["values"][2] for job in drawn["jobs"]] == [*(float(row["headline"]) for row in rows[:3]), None]
    capsys.readouterr()
    assert (
        report.main([str(folder), str(folder / "optimizer.lr-0.001_seed-0"), "--out", str(tmp_path / "side.html")]) == 0
    )
    assert "note: optimizer.lr-0.0003_seed-1: not begun" in capsys.readouterr().out
    assert "3 runs side by side" in (tmp_path / "side.html").read_text()
    SweepFolder(folder).record.write_text("{")
    assert report.main([str(folder)]) == 2
    assert capsys.readouterr().err == (
        f"error: {SweepFolder(folder).record}: corrupt; run the sweep again, it skips finished jobs\n"
    )


def test_the_documented_ablations(capsys):
    """Their tables are those of the recorded sweeps, each of which has finished with three seeds."""
    ablations.main()
    tables, _, compared = capsys.readouterr().out.strip().rpartition("\n\n")
    documented = (ROOT / "docs" / "ablations.md").read_text()
    assert tables.count("sweep=") == 10
    assert [line for line in tables.splitlines() if line not in documented.splitlines()] == []
    assert compared.startswith("4 of 84 differences")
    for file in (ROOT / "docs" / "ablations").glob("*.csv"):
        rows = list(csv.DictReader(file.open()))
        assert len(rows) % 3 == 0
        assert all(row["status"] == "finished" for row in rows)
