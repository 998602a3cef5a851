"""Runs on a real Slurm cluster of two nodes, started here; skipped where it cannot start."""

import csv
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from conftest import ROOT, SMALL

from ijepa import cluster

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol")
RUN = (*SMALL, "hardware=slurm", "hardware.accelerator=cpu", "schedule.max_steps=400", "data.workers=0", "task=knn",
       "callbacks.baselines=false")  # fmt: skip
JOB = """#!/bin/bash
#SBATCH --nodes=2 --ntasks-per-node=1 --requeue --open-mode=append --signal=USR1@60
export MASTER_ADDR=127.0.0.1 OMP_NUM_THREADS=1  # the nodes' names are no hosts here
srun {python} {script} {overrides}
"""


def until(found, seconds, what):
    """Waits until ``found`` returns something true, and returns it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        result = found()
        if result:
            return result
        time.sleep(0.5)
    raise TimeoutError(f"{what}: not in {seconds} s")


@pytest.fixture(scope="module")
def slurm():
    """Runs a command of Slurm's and returns what it prints."""
    path = os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"])
    missing = [name for name in PROGRAMS if shutil.which(name, path=path) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed (Debian: slurm-wlm munge)")
    if os.geteuid() != 0:
        pytest.skip("the daemons here run as root")
    folder = Path(tempfile.mkdtemp(prefix="ijepa-slurm-"))
    conf, key = folder / "slurm.conf", folder / "key"
    filled = (ROOT / "tests" / "slurm.conf").read_text().replace("DIR", str(folder))
    conf.write_text(filled.replace("HOST", socket.gethostname().partition(".")[0]))
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    environment = {**os.environ, "PATH": path, "SLURM_CONF": str(conf)}
    files = [f"--{name}={folder / name}" for name in ("socket", "pid-file", "log-file", "seed-file")]

    def run(*command, check=True):
        done = subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True, timeout=60)
        if check and done.returncode:
            raise RuntimeError(f"{command}: {done.stdout}{done.stderr}")
        return done.stdout

    try:
        try:
            run("munged", f"--key-file={key}", *files, "--force")
            run("slurmctld", "-f", conf)
            for node in ("n1", "n2"):
                run("slurmd", "-N", node, "-f", conf)
            until(
                lambda: run("sinfo", "-h", "-p", "low", "-t", "idle", "-o", "%D", check=False).strip() == "2",
                30,
                "nodes",
            )
        except (RuntimeError, TimeoutError, subprocess.TimeoutExpired) as error:
            pytest.skip(f"Slurm does not start here: {error}")
        yield run
    finally:
        run("scancel", "--user=root", check=False)
        for file in [*folder.glob("slurm*.pid"), folder / "pid-file"]:
            if file.exists():
                os.kill(int(file.read_text()), signal.SIGKILL if "slurmd-" in file.name else signal.SIGTERM)
        shutil.rmtree(folder, ignore_errors=True)


def rows(folder):
    try:
        with (folder / "metrics.csv").open(newline="") as file:
            return list(csv.DictReader(file))
    except FileNotFoundError:
        return []


@pytest.mark.slow
def test_preempted_requeued_and_as_good_as_uninterrupted(slurm, tmp_path):
    script = tmp_path / "job.sh"
    overrides = " ".join(map(str, RUN))
    script.write_text(JOB.format(python=sys.executable, script=ROOT / "train.py", overrides=overrides))

    def submit(partition):
        log = tmp_path / f"{partition}.log"
        said = slurm("sbatch", "--parsable", "-p", partition, "-o", log, "-D", tmp_path, script)
        return said.strip(), tmp_path / "runs" / f"digits-slurm-{said.strip()}", log

    def state(job):
        return dict(item.partition("=")[::2] for item in slurm("scontrol", "show", "job", job).split())

    def finish(job, log):
        until(lambda: state(job)["JobState"] not in ("PENDING", "RUNNING", "COMPLETING", "CONFIGURING"), 200, job)
        assert state(job)["JobState"] == "COMPLETED", log.read_text()

    job, whole, log = submit("high")
    finish(job, log)
    job, cut, log = submit("low")
    until(lambda: len(rows(cut)) > 50, 100, "steps")
    slurm("sbatch", "-p", "high", "-N2", "--ntasks-per-node=1", "-o", tmp_path / "other.log", "--wrap", "srun sleep 2")
    until(lambda: state(job)["Restarts"] == "1" and state(job)["JobState"] == "PENDING", 100, "requeue")
    assert not (cut / "summary.json").exists()
    slurm("scontrol", "update", f"JobId={job}", "StartTime=now")  # Slurm would wait two minutes
    finish(job, log)
    print(log.read_text())
    assert "SIGTERM: ends after this step\n" in log.read_text()
    assert "requeued: the job goes on" in log.read_text()
    one, other = (json.loads((folder / "summary.json").read_text()) for folder in (whole, cut))
    assert one["loss"] == other["loss"]
    assert one["results"] == other["results"]
    losses = [[(row["step"], row["train/loss"]) for row in rows(folder)] for folder in (whole, cut)]
    assert losses[0] == losses[1]


@pytest.fixture
def scontrol(tmp_path, monkeypatch):
    """A program in Slurm's place that says PreemptTime, and keeps what it is asked for."""
    asked = tmp_path / "asked"
    program = tmp_path / "scontrol"
    program.write_text(f'#!/bin/sh\necho "$@" >> {asked}\necho "JobId=7 PreemptTime=$PREEMPTED Requeue=1"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("PREEMPTED", "None")
    return lambda: asked.read_text().splitlines() if asked.exists() else []


def test_a_warning_requeues_and_scancel_does_not(scontrol, monkeypatch):
    assert not cluster.requeue(signal.SIGTERM)
    assert scontrol() == ["show job 7"]
    monkeypatch.setenv("PREEMPTED", "2026-01-01T00:00:00")
    assert cluster.requeue(signal.SIGTERM)
    assert cluster.requeue(signal.SIGUSR1)
    assert scontrol()[1:] == ["show job 7", "requeue 7", "requeue 7"]
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "5")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "2")
    assert cluster.job() == "5_2"


def test_submitit_s_handler_comes_first(scontrol):
    heard = []
    before = signal.signal(signal.SIGUSR2, lambda number, frame: heard.append(number))
    try:
        assert cluster.requeue(signal.SIGUSR2)
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert heard == [signal.SIGUSR2]
    assert scontrol() == []


def test_no_slurm_no_requeue(monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert not cluster.requeue(signal.SIGUSR1)
