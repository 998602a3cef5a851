"""The package where it is installed from a wheel, away from the checkout."""

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
from helpers import ROOT, rows
from safetensors import safe_open

pytestmark = pytest.mark.slow

TRAIN = (
    "data=folder", "data.source=my_package.images", "data.root=null", "data.image_size=16", "data.batch_size=8",
    "data.workers=0", "objective=l2", "model.patch_size=4", "model.width=24", "model.depth=2", "predictor.width=12",
    "predictor.depth=1", "schedule.max_steps=2", "schedule.warmup_steps=1", "task=knn",
    "hardware.accelerator=cpu", "hardware.precision=32-true", "callbacks.health_every_steps=null",
    "callbacks.pictures=null", "callbacks.baselines=false",
)  # fmt: skip
MY_PACKAGE = """
import numpy as np
from PIL import Image
from ijepa.data.sets import Arrays, Source

def images(data, seed):
    values = np.random.default_rng(0).integers(0, 255, (24, 20, 20, 3), dtype=np.uint8)
    pictures, labels = [Image.fromarray(value) for value in values], [0, 1] * 8
    parts = Arrays(pictures[:16], {"class": labels}, 3), Arrays(pictures[16:], {"class": labels[:8]}, 3)
    return Source(*parts, {"class": ["a", "b"]})
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """A virtual environment with the wheel; all other packages are those of this one, but for its own ijepa."""
    if importlib.util.find_spec("setuptools") is None:
        pytest.skip("needs setuptools; pip install setuptools")
    place = tmp_path_factory.mktemp("wheel")
    source = place / "checkout"
    source.mkdir()
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("ijepa", "conf"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    pip("wheel", "--no-build-isolation", "--no-deps", "--no-index", "--wheel-dir", place, source)
    folder = place / "venv"
    venv.create(folder)
    (wheel,) = place.glob("*.whl")
    pip("--python", folder / "bin" / "python", "install", "--no-deps", "--no-index", wheel)
    own = sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)})
    others = dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
    Path(own, "test_environment.pth").write_text("\n".join(others))  # .pth files in these folders are not followed
    return folder


def pip(*arguments):
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}  # or it is installed
    command = [sys.executable, "-m", "pip", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=variables)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def typed(environment, tmp_path_factory):
    """What is typed in a folder elsewhere, beside the user's own package: exit code, standard output and error."""
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "my_package.py").write_text(MY_PACKAGE)
    variables = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "IJEPA_CONSOLE")}

    def run(program, *arguments):
        command = [environment / "bin" / program, *map(str, arguments)]
        done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, timeout=300)
        return done.returncode, done.stdout, done.stderr

    run.folder = folder
    return run


@pytest.fixture(scope="module")
def trained(typed):
    code, output, error = typed("ijepa", "train", *TRAIN, "run_dir=one", "hardware=ddp", "hardware.devices=2")
    assert code == 0, error
    assert "next: ijepa evaluate checkpoint=one trust=my_package\n" in output
    return typed.folder / "one"


def test_the_wheel_holds_every_file(environment, typed):
    code, output, _ = typed("python", "-c", "import ijepa.util.paths as p; print(p.PACKAGE, p.CONF, sep='\\n')")
    package, conf = map(Path, output.split())
    assert code == 0
    assert package.is_relative_to(environment)
    assert conf == package / "_conf"
    for found, root in ((conf, ROOT / "conf"), (package, ROOT / "ijepa")):
        files = [path.relative_to(root) for path in root.rglob("*") if path.is_file() and path.suffix != ".pyc"]
        assert not [file for file in files if not (found / file).exists()]


def test_a_run_on_two_processes_with_code_of_the_users_own(trained):
    assert [row["step"] for row in rows(trained)][-1] == "2"
    assert (trained / "config.yaml").read_text().startswith("# Repeat: ijepa train --config-dir ")


def test_each_command(trained, typed):
    code, output, error = typed("ijepa", "evaluate", "checkpoint=one", "trust=my_package", "baselines=false")
    assert code == 0, error
    assert "k-NN" in output or "knn" in output
    code, output, error = typed("ijepa", "inspect", "one")
    assert code == 0, error
    assert "width 24" in output
    code, output, error = typed("ijepa", "convert", "one", "out.safetensors", "--to", "timm")
    assert code == 0, error
    with safe_open(typed.folder / "out.safetensors", "pt") as file:
        assert "pos_embed" in file.keys()  # noqa: SIM118
    code, output, error = typed("ijepa", "report", "one")
    assert code == 0, error
    assert (trained / "report.html").stat().st_size > 10_000


def test_statistics_become_an_option_in_the_current_folder(typed):
    code, output, error = typed("ijepa", "statistics", "data.source=my_package.images", "data.root=null", "name=mine",
                                "data.workers=0")  # fmt: skip
    assert code == 0, error
    assert output.endswith("written  conf/data/mine.yaml\nnext: ijepa train --config-dir conf data=mine\n")
    code, output, error = typed("ijepa", "train", "--config-dir", "conf", "data=mine", "--help")
    assert code == 0, error
    assert "data.source=my_package.images" in output
    code, _, error = typed("ijepa", "statistics", "data.source=my_package.images", "data.root=null", "name=cifar10")
    assert code == 2
    assert error == "error: name=cifar10: is a built-in option; choose another name\n"


def test_a_sweep_in_processes_of_its_own(typed):
    code, output, error = typed("ijepa", "train", "-m", *TRAIN, "run_dir=sweep", "seed=0,1", "hydra/launcher=joblib")
    assert code == 0, error
    assert "next: ijepa report " in output
    assert len((typed.folder / "sweep" / "sweep.csv").read_text().splitlines()) == 3


@pytest.mark.parametrize("command", ["train", "evaluate", "statistics", "convert", "inspect", "report"])
def test_help_and_mistakes(typed, command):
    code, output, _ = typed("ijepa", command, "--help")
    assert code == 0
    assert f"ijepa {command}" in output
    code, _, error = typed("ijepa", command, "--nonsense")
    assert code == 2
    assert error.startswith("error: ")
    assert error.count("\n") == 1


def test_the_library(trained, typed):
    code, output, error = typed("python", "-c", "import ijepa; print(ijepa.load_encoder('one').spec.width)")
    assert (code, output) == (0, "24\n"), error
