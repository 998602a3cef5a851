"""Runs on a real Slurm cluster of two nodes, started here; skipped where it cannot start."""

import contextlib
import csv
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from helpers import ROOT, SMALL

from ijepa.distributed import slurm

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol")
RUN = (*SMALL, "hardware=slurm", "hardware.accelerator=cpu", "schedule.max_steps=200", "data.workers=0")
JOB = """#!/bin/bash
#SBATCH --nodes=2 --ntasks-per-node=1 --requeue --open-mode=append --signal=USR1@60
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


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def end(variable):
    """Ends all processes that have the variable in their environment: daemons, and what they have started."""
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if variable.encode() in (folder / "environ").read_bytes().split(b"\0"):
                os.kill(int(folder.name), signal.SIGKILL)


@pytest.fixture(scope="module")
def cluster():
    """Runs a command of Slurm's and returns what it prints."""
    path = os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"])
    missing = [name for name in PROGRAMS if shutil.which(name, path=path) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed (Debian: slurm-wlm munge)")
    if os.geteuid() != 0:
        pytest.skip("the daemons here run as root")
    folder = Path(tempfile.mkdtemp(prefix="ijepa-slurm-"))
    conf, key = folder / "slurm.conf", folder / "key"
    ports = free_ports(3)
    filled = {"DIR": folder, "HOST": socket.gethostname().partition(".")[0], "FIRST": 1000 + os.getpid() % 8000}
    text = (ROOT / "tests" / "slurm.conf").read_text()
    for word, value in (filled | {f"PORT{number}": port for number, port in enumerate(ports)}).items():
        text = re.sub(rf"\b{word}\b", str(value), text)
    conf.write_text(text)
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    environment = {**os.environ, "PATH": path, "SLURM_CONF": str(conf), "MASTER_ADDR": "127.0.0.1",
                   "OMP_NUM_THREADS": "1"}  # fmt: skip  # the nodes' names are no hosts here
    files = [f"--{name}={folder / name}" for name in ("socket", "pid-file", "log-file", "seed-file")]

    def run(*command, check=True):
        done = subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True, timeout=200)
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
        end(f"SLURM_CONF={conf}")
        shutil.rmtree(folder, ignore_errors=True)


def rows(folder):
    try:
        with (folder / "metrics.csv").open(newline="") as file:
            return list(csv.DictReader(file))
    except FileNotFoundError:
        return []


@pytest.mark.slow
def test_preempted_requeued_and_as_good_as_uninterrupted(cluster, tmp_path):
    script = tmp_path / "job.sh"
    overrides = " ".join(map(str, RUN))
    script.write_text(JOB.format(python=sys.executable, script=ROOT / "train.py", overrides=overrides))

    def submit(partition):
        log = tmp_path / f"{partition}.log"
        said = cluster("sbatch", "--parsable", "-p", partition, "-o", log, "-D", tmp_path, script)
        return said.strip(), tmp_path / "runs" / f"digits-slurm-{said.strip()}", log

    def state(job):
        return dict(item.partition("=")[::2] for item in cluster("scontrol", "show", "job", job).split())

    def finish(job, log):
        until(lambda: state(job)["JobState"] not in ("PENDING", "RUNNING", "COMPLETING", "CONFIGURING"), 200, job)
        assert state(job)["JobState"] == "COMPLETED", log.read_text()

    job, whole, log = submit("high")
    finish(job, log)
    job, cut, log = submit("low")
    until(lambda: len(rows(cut)) > 50, 100, "steps")
    cluster(
        "sbatch", "-p", "high", "-N2", "--ntasks-per-node=1", "-o", tmp_path / "other.log", "--wrap", "srun sleep 2"
    )
    until(lambda: state(job)["Restarts"] == "1" and state(job)["JobState"] == "PENDING", 100, "requeue")
    assert not (cut / "summary.json").exists()
    cluster("scontrol", "update", f"JobId={job}", "StartTime=now")  # Slurm would wait two minutes
    finish(job, log)
    print(log.read_text())
    assert "SIGTERM: the run ends after this step\n" in log.read_text()
    assert "requeueing: the job resumes" in log.read_text()  # said first: Slurm may end the process within requeue
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


@pytest.mark.integration
def test_a_warning_requeues_and_scancel_does_not(scontrol, monkeypatch):
    assert not slurm.requeue(signal.SIGTERM)
    assert scontrol() == ["show job 7"]
    monkeypatch.setenv("PREEMPTED", "2026-01-01T00:00:00")
    assert slurm.requeue(signal.SIGTERM)
    assert slurm.requeue(signal.SIGUSR1)
    assert scontrol()[1:] == ["show job 7", "requeue 7", "requeue 7"]
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "5")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "2")
    assert slurm.job_id() == "5_2"
    monkeypatch.setenv("SLURM_JOB_NAME", "bash")
    assert slurm.job_id() is None  # an interactive shell


def test_submitit_s_handler_comes_first(scontrol):
    heard = []
    before = signal.signal(signal.SIGUSR2, lambda number, frame: heard.append(number))
    try:
        assert slurm.requeue(signal.SIGUSR2)
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert heard == [signal.SIGUSR2]
    assert scontrol() == []


def test_no_slurm_no_requeue(monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert not slurm.requeue(signal.SIGUSR1)


@pytest.mark.slow
def test_a_sweep_of_jobs_with_two_ranks_through_submitit(cluster, tmp_path):
    launcher = ["hydra/launcher=submitit_slurm", "hydra.launcher.partition=low", "hydra.launcher.nodes=2",
                "hydra.launcher.tasks_per_node=1", "hydra.launcher.cpus_per_task=1"]  # fmt: skip
    command = [sys.executable, ROOT / "train.py", "-m", *RUN, "schedule.max_steps=4", "seed=0,1", "optimizer.lr=1e-3",
               f"run_dir={tmp_path / 'sweep'}", *launcher]  # fmt: skip
    said = cluster(*command)
    with (tmp_path / "sweep" / "sweep.csv").open(newline="") as file:
        assert [row["status"] for row in csv.DictReader(file)] == ["finished", "finished"]
    assert "2 jobs" in said
    config = (tmp_path / "sweep" / "seed-0" / "config.yaml").read_text()
    assert "nodes: 2" in config
