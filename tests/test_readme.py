"""What README says can be typed."""

import importlib
import re
import shlex

import pytest
import torch
from helpers import ROOT, composed
from omegaconf import OmegaConf

import ijepa
from ijepa.cli import statistics
from ijepa.config import TRAINING, EvaluateConfig, TrainConfig
from ijepa.config.checks import check, parse
from ijepa.interop import command as interop
from ijepa.interop.dense import DenseDescription, DensePredictor, write_dense
from ijepa.report import command as report

pytestmark = pytest.mark.slow

LAYERED = ("linear", "count", "distance", "depth", "segmentation")
TRAINED = ("linear", "finetune", "attentive")


def readme_commands():
    return re.findall(
        r"`python ((?:train\.py|evaluate\.py|predict\.py|-m ijepa\.)[^`]*)`", (ROOT / "README.md").read_text()
    )


TINY_DECODER = ["hardware=cpu", "decoder.size=8", "decoder.width=16", "decoder.heads=2", "decoder.steps=2"]


@pytest.mark.parametrize("line", readme_commands())
def test_every_command_of_the_readme(line, finished, checkpoint_file, pictures, tmp_path, invoke, monkeypatch):
    """Composes; and runs at a small size where it is possible here."""
    folder, _ = finished
    template = line
    classes = [f"{path.relative_to(pictures)},{path.parent.name}" for path in pictures.rglob("*.png")]
    (tmp_path / "labels.csv").write_text("\n".join(["file,class", *classes]))
    (tmp_path / "list.csv").write_text("\n".join(["file", *map(str, pictures.rglob("*.png"))]))
    for name, value in {"images.csv": tmp_path / "list.csv", "RUN_DIR": folder, "IMAGES": pictures,
                        "NEW": tmp_path / "new", "PROJECT": "test",
                        "OUT": tmp_path / "out", "PTH_TAR": checkpoint_file,
                        "LABELS": tmp_path / "labels.csv", "n_trials=20": "n_trials=2",
                        "seed=0,1,2": "seed=0"}.items():  # fmt: skip
        line = line.replace(name, str(value))
    if "CLASSIFIER" in line:
        left = tmp_path / "left"
        assert (
            invoke("evaluate.py", f"checkpoint={folder}", "task=logistic", f"output={left}", "baselines=false")[0] == 0
        )
        line = line.replace("CLASSIFIER", str(left / "classifier.safetensors"))
    if "DECODER_RUN" in line:
        decoder = tmp_path / "decoder"
        values = ["schedule.max_steps=1", "schedule.warmup_steps=0", "data.batch_size=4", *TINY_DECODER]
        code, _, error = invoke("train.py", "experiment=decoder", f"checkpoint={folder}", f"run_dir={decoder}", *values)
        assert code == 0, error
        line = line.replace("DECODER_RUN", str(decoder))
    if "DENSE" in line:
        encoder = ijepa.load_encoder(folder)
        head = torch.nn.Linear(encoder.spec.width, 1)
        write_dense(tmp_path / "depth.safetensors", DensePredictor(encoder, head, DenseDescription("depth", (16, 16))))
        line = line.replace("DENSE", str(tmp_path / "depth.safetensors"))
    script, *arguments = shlex.split(line)
    if (
        any(word in arguments for word in ("hardware=gpu", "hardware=ddp", "data=cifar10", "data=clevr"))
        or "MASKS" in line
    ):
        if script == "evaluate.py":
            values = composed(*arguments, name="evaluate")
            unused = TRAINING - {"model"}
            parse(EvaluateConfig, OmegaConf.create({k: value for k, value in dict(values).items() if k not in unused}))
        else:
            check(parse(TrainConfig, composed(*arguments)))
        return
    if script == "-m" and arguments[0] == "ijepa.interop":
        assert interop.main(arguments[1:]) == 0
        return
    if script == "-m" and arguments[0] == "ijepa.report":
        assert report.main([*arguments[1:], "--out", str(tmp_path / "report.html")]) == 0
        return
    if script == "-m" and arguments[0] == "ijepa.data.verify":
        assert invoke("verify", *arguments[1:], "data.workers=0")[0] == 0
        return
    if script == "-m":
        assert arguments.pop(0) == "ijepa.data.statistics"
        monkeypatch.setattr(statistics, "OPTIONS", tmp_path / "conf" / "data")
        assert invoke("statistics", *arguments, "data.workers=0")[0] == 0
        return
    if script == "predict.py":
        assert (
            invoke(
                script,
                *arguments,
                f"output={tmp_path / 'found'}{'' if 'DENSE' in template else '.csv'}",
                "data.workers=0",
            )[0]
            == 0
        )
        return
    if "--help" in arguments or "resume=RUN_DIR" in template or "--config-dir" in line:
        code, _, error = invoke(script, *arguments)
        assert code == 0, error
        return
    if script == "evaluate.py":
        tasks = [name for name in LAYERED if f"task={name}" in arguments or "task=paper" in arguments]
        arguments += [f"task.{name}.layers=[1,2]" for name in tasks]  # the encoder here has two blocks
        arguments += [f"task.{name}.epochs=5" for name in TRAINED if f"task={name}" in arguments]
        arguments += ["heads=3"] if "PTH_TAR" in template else []
        if "task=decode" in line:
            arguments += ["task.decode.blocks=4", "task.decode.train_blocks=20", "task.decode.classifier_epochs=1"]
        assert invoke(script, *arguments, f"output={tmp_path}")[0] == 0
        return
    small = [
        "hardware.accelerator=cpu", "model.width=24", "model.heads=3", "model.depth=1", "predictor.width=12",
        "predictor.depth=1", "schedule.max_steps=1",
        "schedule.warmup_steps=0", "data.workers=0", "callbacks.baselines=false", "callbacks.pictures=null",
        f"hydra.sweep.dir={tmp_path}",
    ]  # fmt: skip
    if "data=" not in line and "experiment=smoke" not in line:
        small += ["data.scenes.train=40", "data.scenes.val=24", "data.image_size=48"]
    if "data.batch_size=512" not in line:
        small += ["data.batch_size=8"]
    if any(f"experiment={name}" in line for name in ("small_images", "scenes")):
        small += ["objective.target_depths=[0,1]"]
    if "experiment=student" in line:
        small += ["objective.target_depths=[0,1]", "teacher.width=12", "teacher.depth=1", "teacher.predictor_width=12"]
    if "objective.teacher=" in line:
        spec = ijepa.load_encoder(folder).spec
        small += [f"data.image_size={list(spec.image_size)}", f"model.patch_size={spec.patch_size}"]
    if "init=" in line:  # has sizes of its own
        small = [item for item in small if not item.startswith(("model.", "predictor."))] + ["model.heads=3"]
    if "experiment=decoder" in line:  # its networks are the checkpoint's
        small = [
            item for item in small if not item.startswith(("model.", "predictor.", "data.scenes", "data.image_size"))
        ]
        small += TINY_DECODER
    if "sweep=masking" in line:
        small += ["task=[lowshot,knn]", "task.lowshot.draws=1"]
    if "logger=wandb" in line:
        small += ["logger.mode=offline"]
    code, _, error = invoke(script, *arguments, f"run_dir={tmp_path / 'run'}", *small)
    assert code == 0, error


@pytest.mark.parametrize("name", ["masking", "pictures", "visibility"])
def test_benchmarks_run(name, tmp_path, monkeypatch, capsys):
    benchmark = importlib.import_module(f"benchmarks.{name}")
    if name == "masking":
        monkeypatch.setattr(benchmark, "ROUNDS", 2)
    else:
        monkeypatch.setattr(benchmark, "OUTPUT", tmp_path / "picture.png")
    if name == "visibility":
        monkeypatch.setattr(benchmark, "IMAGES", 512)
    benchmark.main()
    assert capsys.readouterr().out
    assert name == "masking" or (tmp_path / "picture.png").stat().st_size > 10_000
