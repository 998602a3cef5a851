"""`python train.py init=FILE`: what starts from where, and with which settings."""

import json

import pytest
import torch
from helpers import EXACT, REFERENCE, TINY, assert_same, reference_name, rows, train_config
from omegaconf import OmegaConf
from safetensors.torch import save_file
from timm.models import VisionTransformer
from torch.utils.data import DataLoader
from weight_files import networks, normalised, saved, spec_of

import ijepa
from ijepa.data.datamodule import Batch
from ijepa.interop import timm
from ijepa.interop.command import main
from ijepa.masking import Masks
from ijepa.run import build, warm_start

SCENES = ("data.scenes.train=16", "data.scenes.val=8", "data.batch_size=8", *TINY[1:3], *TINY[7:])


def start(invoke, folder, *overrides):
    """A run of a few steps on scenes; its output."""
    code, output, error = invoke("train.py", *SCENES, *overrides, "callbacks.evaluate_every_epochs=null",
                                 "objective=l2", f"run_dir={folder}")  # fmt: skip
    assert code == 0, error
    return output


def config_of(folder):
    return OmegaConf.to_container(OmegaConf.load(folder / "config.yaml"))


def first(folder):
    """The run's networks before their first step, as its configuration wires them."""
    values = config_of(folder)
    values.pop("defaults")
    from ijepa.config import TrainConfig
    from ijepa.config.checks import parse

    return build.run(parse(TrainConfig, values), folder).module.jepa


def refused(invoke, *overrides):
    code, _, error = invoke("train.py", *SCENES, *overrides)
    assert (code, error.count("\n")) == (2, 1), error
    return error


@pytest.mark.integration
def test_the_recorded_losses(checkpoint_file, trace, tmp_path):
    """Fresh AdamW, the schedule from step 0: what the reference implementation records from the same checkpoint."""
    tensors, recorded = trace
    sizes = ("width=48", "depth=3", "heads=3", "patch_size=8")
    config = train_config(
        f"init={checkpoint_file}", *(f"model.{size}" for size in sizes), "predictor.width=24", "predictor.depth=2",
        "data.image_size=64", "data.mean=[0.485,0.456,0.406]", "data.std=[0.229,0.224,0.225]", "data.batch_size=4",
        "data.scenes.train=400", "data.scenes.val=4", "objective=smooth_l1", "optimizer.lr=1e-3",
        "schedule.max_steps=40", "schedule.warmup_steps=10", "hardware=cpu", "hardware.precision=32-true",
        "callbacks.log_every_steps=1", "callbacks.evaluate_every_epochs=null",
        "callbacks.health_every_steps=null", "callbacks.pictures=null",
    )  # fmt: skip
    run = build.run(config, tmp_path)
    mean, std = run.module.mean, run.module.std
    batches = [
        Batch(tensors[f"{i}.images"] * std + mean,
              Masks(tensors[f"{i}.context_indices"], tensors[f"{i}.target_indices"]), [])
        for i in range(3)
    ]  # fmt: skip
    run.trainer.fit_loop.epoch_loop.max_steps = 3
    run.trainer.fit(run.module, DataLoader(batches, batch_size=None))
    for row, step in zip(rows(tmp_path), recorded["steps"], strict=True):
        assert float(row["train/loss"]) == pytest.approx(step["smooth_l1"], abs=1e-5)
        assert float(row["lr"]) == pytest.approx(step["lr"], rel=1e-9)
    for name, tensor in run.module.jepa.state_dict().items():
        torch.testing.assert_close(tensor, tensors[f"after3.{reference_name(name)}"], atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", ["wide", "scaled", "twelve"])
def test_all_three_networks_of_a_checkpoint(invoke, tmp_path, name):
    spec = spec_of(name)
    file, jepa = saved(spec, tmp_path)
    extra = ["data.channels=4"] if name == "scaled" else []
    if name != "wide":  # scenes have three channels
        assert "data.channels" in refused(invoke, f"init={file}", "data.scenes.max_objects=4", *extra)
        return
    output = start(invoke, tmp_path / "run", f"init={file}")
    assert f"init     context encoder, target encoder and predictor of {file}" in output
    config = config_of(tmp_path / "run")
    assert config["init"] == str(file)
    assert config["data"]["image_size"] == list(spec.image_size)
    assert config["data"]["mean"] == list(spec.mean)
    assert config["data"]["eval_crop"] == spec.eval_crop
    assert config["model"]["heads"] == 3
    assert config["predictor"] == {"width": 24, "depth": 2, "mlp_ratio": 4.0, "attention": "joint"}
    assert config["optimizer"]["lr"] == 1e-4  # of experiment=continued
    assert_same(first(tmp_path / "run").state_dict(), jepa.state_dict(), **EXACT)


@pytest.mark.parametrize("kind", ["export", "timm", "transformers", "meta"])
def test_from_every_format(invoke, tmp_path, kind):
    spec = spec_of("square")
    jepa = networks(spec)
    encoder, heads = jepa.target_encoder, ["model.heads=3"]
    path = tmp_path / {"export": "e.safetensors", "timm": "e.pth", "transformers": "hf", "meta": "m.pth.tar"}[kind]
    if kind in ("export", "timm"):
        timm.write(path, encoder, spec, "target")
    elif kind == "transformers":
        from ijepa.interop import transformers

        transformers.write(path, encoder, spec, "target")
    else:
        from ijepa.interop import meta

        meta.write(path, jepa, spec)
    output = start(invoke, tmp_path / "run", f"init={path}", *(heads if kind in ("timm", "meta") else []))
    found = first(tmp_path / "run")
    assert_same(found.target_encoder.state_dict(), encoder.state_dict(), **EXACT)
    if kind == "meta":
        assert_same(found.state_dict(), jepa.state_dict(), **EXACT)
    else:
        assert "both encoders from the" in output
        assert_same(found.context_encoder.state_dict(), encoder.state_dict(), **EXACT)
        assert config_of(tmp_path / "run")["predictor"] == {
            "width": 24,
            "depth": 1,
            "mlp_ratio": 4.0,
            "attention": "joint",
        }  # half the encoder's
    assert len(rows(tmp_path / "run")) == 3


def test_another_resolution(invoke, tmp_path):
    spec = spec_of("wide")
    file, jepa = saved(spec, tmp_path)
    images = torch.rand(2, 3, 48, 80)
    for name, given, expected in (
        ("scaled", [], {"positions": "scaled", "position_grid": [3, 5]}),
        ("index", ["model.positions=index"], {"positions": "index", "position_grid": None}),
    ):
        folder = tmp_path / name
        start(invoke, folder, f"init={file}", "data.image_size=[48,80]", *given)
        model = config_of(folder)["model"]
        assert {key: model[key] for key in expected} == expected
        found = first(folder).target_encoder(normalised(spec, images))
        table = jepa.target_encoder.positions
        table.positions = expected["positions"]
        table._cache.clear()
        torch.testing.assert_close(found, jepa.target_encoder(normalised(spec, images)), atol=1e-6, rtol=0)
    code, _, error = invoke("train.py", "--config-dir", tmp_path / "scaled", "--config-name", "config",
                            f"run_dir={tmp_path / 'again'}")  # fmt: skip
    assert code == 0, error
    assert config_of(tmp_path / "again")["data"]["image_size"] == [48, 80]
    assert config_of(tmp_path / "again")["optimizer"]["lr"] == 1e-4
    last = [torch.load(tmp_path / name / "checkpoints" / "last.ckpt")["state_dict"] for name in ("scaled", "again")]
    assert_same(*last, **EXACT)


@pytest.mark.parametrize("how", ["average", "inflate"])
def test_another_number_of_channels(how):
    weight = torch.randn(8, 3, 4, 4)
    grey = torch.rand(1, 1, 4, 4)
    before = torch.nn.functional.conv2d(grey.expand(-1, 3, -1, -1), weight)
    for channels in (1, 3, 6, 12) if how == "average" else (3, 6, 12):
        after = torch.nn.functional.conv2d(
            grey.expand(-1, channels, -1, -1), warm_start.adapt_patch_embedding(weight, channels, how))  # fmt: skip
        torch.testing.assert_close(after, before, atol=1e-5, rtol=0)


def test_other_channels_in_a_run(invoke, tmp_path, pictures):
    spec = spec_of("square")
    file, jepa = saved(spec, tmp_path)
    grey = ("data=folder", f"data.root={pictures}", "data.channels=1")
    given = ["train.py", f"init={file}", *grey, *SCENES[2:], "data.mean=[0.5]", "data.std=[0.5]",
             f"run_dir={tmp_path / 'run'}"]  # fmt: skip
    code, _, error = invoke(*given)
    assert code == 2
    assert "data.channels=1: " in error
    assert "init_channels=average" in error
    code, _, error = invoke(*given, "init_channels=average")
    assert code == 0, error
    weight = jepa.context_encoder.patch_embed.proj.weight
    found = first(tmp_path / "run").context_encoder.patch_embed.proj.weight
    torch.testing.assert_close(found, weight.sum(1, keepdim=True), atol=1e-6, rtol=0)


def test_a_resumed_run_goes_on_from_its_own_checkpoint(invoke, tmp_path):
    file, _ = saved(spec_of("square"), tmp_path)
    start(invoke, tmp_path / "whole", f"init={file}", "schedule.max_steps=4")
    start(invoke, tmp_path / "half", f"init={file}", "schedule.max_steps=4", "callbacks.checkpoint_every_steps=2")
    (tmp_path / "half" / "checkpoints" / "last.ckpt").unlink()
    (tmp_path / "half" / "checkpoints" / "step-000004.ckpt").unlink()
    file.unlink()  # not needed any more
    code, _, error = invoke("train.py", f"resume={tmp_path / 'half' / 'checkpoints' / 'step-000002.ckpt'}")
    assert code == 0, error
    last = [torch.load(tmp_path / name / "checkpoints" / "last.ckpt")["state_dict"] for name in ("whole", "half")]
    assert_same(*last, **EXACT)
    code, _, error = invoke("train.py", f"resume={tmp_path / 'half'}", "init=other.ckpt")
    assert (code, error.count("\n")) == (2, 1)
    assert "init" in error


def test_an_experiment_of_one_s_own_wins(invoke, tmp_path):
    file, _ = saved(spec_of("square"), tmp_path)
    start(invoke, tmp_path / "run", f"init={file}", "experiment=[]")
    assert config_of(tmp_path / "run")["optimizer"]["lr"] == 5e-4
    start(invoke, tmp_path / "own", f"init={file}", "optimizer.lr=3e-4")
    assert config_of(tmp_path / "own")["optimizer"]["lr"] == 3e-4
    code, _, error = invoke("train.py", f"init={file}", "experiment=smoke")
    assert code == 2
    assert "init=" in error
    assert "omit it" in error


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["init=nowhere"], "init=nowhere: no such file or folder"),
        (["init=FILE", "model.width=96"], "model.width=96: init=FILE has 48; omit it, or set the same"),
        (["init=FILE", "model=vit_tiny"], "has 8; omit it"),
        (["init=FILE", "predictor.depth=3"], "predictor.depth=3: init=FILE has 2; omit it"),
        (["init=FILE", "init_channels=average"], "has 3 channels already"),
        (["init=FILE", "init_channels=other"], "init_channels=other"),
        (["init=FILE", "data.image_size=30"], "does not divide data.image_size=[30,30]"),
        (["init=FOREIGN"], "expected the weights of an I-JEPA, found a"),
        (["init=REFERENCE"], "add model.heads=N"),
        (["init=FILE", "model.heads=three"], "should be a whole number"),
        (
            ["init=FILE", "data.channels=4", "init_channels=inflate"],
            "not a multiple of 3; try init_channels=average",
        ),
        (["init_channels=average"], "init_channels=average: needs init="),
        (["init="], "init=: needs a run folder"),
    ],
)
def test_mistakes(invoke, tmp_path, overrides, says):
    file, _ = saved(spec_of("square"), tmp_path)
    save_file({"a": torch.zeros(2)}, tmp_path / "x.safetensors")
    known = {"FILE": file, "FOREIGN": tmp_path / "x.safetensors", "REFERENCE": REFERENCE / "checkpoint.pth.tar"}

    def filled(text):
        for name, path in known.items():
            text = text.replace(name, str(path))
        return text

    before = sorted(tmp_path.iterdir())
    error = refused(invoke, *map(filled, overrides), f"run_dir={tmp_path / 'run'}")
    assert filled(says) in error
    assert sorted(tmp_path.iterdir()) == before


def test_a_predictor_that_only_cross_attends(tmp_path, invoke):
    """It is recognised by its weights, and other attention is refused."""
    file, jepa = saved(spec_of("square"), tmp_path, attention="cross")
    start(invoke, tmp_path / "run", f"init={file}")
    assert config_of(tmp_path / "run")["predictor"]["attention"] == "cross"
    assert_same(first(tmp_path / "run").state_dict(), jepa.state_dict(), **EXACT)
    error = refused(invoke, f"init={file}", "predictor.attention=joint", f"run_dir={tmp_path / 'other'}")
    assert f"predictor.attention=joint: init={file} has cross; omit it" in error
    assert main(["convert", str(file), str(tmp_path / "m.pth.tar"), "--to", "meta"]) == 2


def test_a_predictor_that_tells_something_else(tmp_path, invoke):
    file, jepa = saved(spec_of("square"), tmp_path)
    code, output, error = invoke("train.py", f"init={file}", *SCENES, "objective=pixels", f"run_dir={tmp_path / 'run'}")
    assert code == 0, error
    assert "the predictor is newly initialised" in output
    assert_same(first(tmp_path / "run").context_encoder.state_dict(), jepa.context_encoder.state_dict(), **EXACT)
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["steps"] == 3


def test_continued_is_for_runs_from_weights_alone(invoke, tmp_path):
    file, _ = saved(spec_of("square"), tmp_path)
    code, output, error = invoke("train.py", "-m", f"init=null,{file}", *SCENES, "callbacks.evaluate_every_epochs=null",
                                 f"run_dir={tmp_path / 'sweep'}")  # fmt: skip
    assert code == 0, output + error
    found = {config["init"]: config["optimizer"]["lr"] for config in map(config_of, (tmp_path / "sweep").glob("*/"))}
    assert found == {None: 5e-4, str(file): 1e-4}
    start(invoke, tmp_path / "listed", f"init={file}", "experiment=[continued]")
    assert config_of(tmp_path / "listed")["optimizer"]["lr"] == 1e-4
    for flag in (["--help"], ["--cfg", "job"]):
        assert invoke("train.py", f"init={file}", *flag)[0] == 0


def test_learnt_positions_stay(invoke, tmp_path):
    judge = VisionTransformer(**timm.constructor_arguments(spec_of("square")))
    torch.save(judge.state_dict(), tmp_path / "vit.pth")
    init = (f"init={tmp_path / 'vit.pth'}", "model.heads=3")
    output = start(invoke, tmp_path / "run", *init)
    assert "learnt or fine-tuned: kept as they are" in output
    trained = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt")["state_dict"]
    for network in ("context_encoder", "target_encoder"):
        assert torch.equal(trained[f"jepa.{network}.pos_embed"], judge.pos_embed)
    assert torch.equal(ijepa.load_encoder(tmp_path / "run").encoder.pos_embed, judge.pos_embed)
    start(invoke, tmp_path / "larger", *init, "data.image_size=48")
    assert config_of(tmp_path / "larger")["model"]["position_grid"] == [4, 4]
    (tmp_path / "vit.pth").unlink()
    code, _, error = invoke("train.py", f"resume={tmp_path / 'larger'}")
    assert code == 0, error
    assert invoke("evaluate.py", f"checkpoint={tmp_path / 'larger'}", f"output={tmp_path / 'knn'}")[0] == 0
    assert "model.positions=index: init has learnt ones" in refused(invoke, *first_of(tmp_path, judge))
    assert "model.positions=stored: needs init=FILE" in refused(invoke, "model.positions=stored")


def first_of(tmp_path, judge):
    torch.save(judge.state_dict(), tmp_path / "vit.pth")
    return f"init={tmp_path / 'vit.pth'}", "model.heads=3", "model.positions=index"
