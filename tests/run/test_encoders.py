"""Runs with encoders other than the default one: they train, resume to the bit, are evaluated and exported."""

import sys

import pytest
import timm
import torch
from helpers import EXACT, SMALL, TINY, assert_same, rows, train_config
from safetensors.torch import load_file

import ijepa
from ijepa.interop.command import main as interop
from ijepa.run import build, encoders
from ijepa.util.errors import UserError

OWN = """
import torch
from torch import nn


class Mixer(nn.Module):
    def __init__(self, image_size: tuple[int, int], channels: int, patch_size: int, width: int = 16):
        super().__init__()
        self.patch_size, self.width, self.depth = patch_size, width, 2
        self.head = nn.Linear(channels * patch_size**2, width)
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(2))

    def grid_of(self, height, width):
        return height // self.patch_size, width // self.patch_size

    def forward(self, images, indices=None, valid=None, last=1):
        tokens = self.head(nn.functional.unfold(images, self.patch_size, stride=self.patch_size).transpose(1, 2))
        if indices is not None:
            flat = indices.flatten(1)[..., None].expand(-1, -1, self.width)
            tokens = tokens.gather(1, flat).unflatten(1, indices.shape[1:])
        outputs = []
        for layer in self.layers:
            tokens = tokens + layer(tokens + tokens.mean(-2, keepdim=True)).relu()
            outputs.append(tokens)
        return torch.cat(outputs[-last:], -1)


class Narrow(Mixer):
    def forward(self, *arguments, **options):
        return super().forward(*arguments, **options)[..., 1:]


class Leaky(Mixer):
    def forward(self, images, indices=None, **options):
        return super().forward(images + images.mean((2, 3), keepdim=True), indices, **options)


class NoModule:
    pass


class NoGrid(nn.Module):
    width, depth = 8, 1

    def __init__(self):
        super().__init__()
"""
DATA = ("data=digits", "data.batch_size=16", "schedule=constant")
TIMM = ("model=timm", "model.name=vit_tiny_patch16_224")


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Options of the user's own, model=mine, for a class in a module of theirs."""
    (tmp_path / "own_encoders.py").write_text(OWN)
    (tmp_path / "conf" / "model").mkdir(parents=True)
    text = "# @package _global_\nmodel:\n  _target_: own_encoders.Mixer\n  width: 24\n"
    text += "predictor:\n  width: 24\n  depth: 1\n"
    (tmp_path / "conf" / "model" / "mine.yaml").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    yield ("--config-dir", tmp_path / "conf", "model=mine")
    sys.modules.pop("own_encoders", None)


def trained(invoke, folder, *arguments):
    """A run of three steps, and one of two that is resumed; both give the same weights."""
    whole, parts = folder / "whole", folder / "parts"
    for run, steps in ((whole, 3), (parts, 2)):
        code, _, err = invoke("train.py", *arguments, *DATA, f"run_dir={run}", f"schedule.max_steps={steps}")
        assert code == 0, err
    code, _, err = invoke("train.py", f"resume={parts}", "schedule.max_steps=3", "trust=own_encoders")
    assert code == 0, err
    one, other = (load_file(run / "encoder.safetensors") for run in (whole, parts))
    assert_same(one, other, **EXACT)
    assert [row["train/loss"] for row in rows(whole)] == [row["train/loss"] for row in rows(parts)]
    assert float(rows(whole)[-1]["flops"]) > 0
    return whole


def evaluated(invoke, run, *arguments):
    code, _, err = invoke("evaluate.py", f"checkpoint={run}", "baselines=false", "hardware=cpu", *arguments)
    assert code == 0, err


def converted(capsys, run, out, to, *options):
    code = interop(["convert", str(run), str(out), "--to", to, *options])
    return code, capsys.readouterr().err


def tiny(*without):
    return [item for item in TINY if not item.startswith(without)] if without else list(TINY)


def test_a_run_with_a_timm_model(tmp_path, invoke, capsys):
    run = trained(invoke, tmp_path, *TIMM, *tiny())
    network = ijepa.load_encoder(run)
    assert network(torch.rand(2, 1, 32, 32)).shape == (2, 64, 24)
    evaluated(invoke, run, "task=[knn,pictures]", "layers=2")
    assert list((run / "evaluation").rglob("attention.png"))
    code, err = converted(capsys, run, tmp_path / "out.safetensors", "timm")
    assert code == 0, err
    judge = timm.create_model(
        "vit_tiny_patch16_224", num_classes=0, img_size=32, patch_size=4, in_chans=1, embed_dim=24, depth=2
    )
    judge.load_state_dict(load_file(tmp_path / "out.safetensors"))
    card = (tmp_path / "README.md").read_text()
    assert "timm.create_model(\n    'vit_tiny_patch16_224'" in card
    for to in ("transformers", "meta"):
        code, err = converted(capsys, run, tmp_path / to, to)
        assert (code, err.count("\n")) == (2, 1)
        assert f"error: --to={to}: " in err
        assert "vit_tiny_patch16_224" in err
    assert interop(["inspect", str(run)]) == 0
    assert "timm vit_tiny_patch16_224" in capsys.readouterr().out
    again = (f"init={run}", f"run_dir={tmp_path / 'next'}", *DATA, *tiny("model", "predictor"))
    code, _, err = invoke("train.py", *again)
    assert code == 0, err
    code, _, err = invoke("train.py", *again, "model=vit_tiny")
    assert (code, err) == (
        2,
        f"error: model=vit: init={run}/checkpoints/last.ckpt has vit_tiny_patch16_224; omit it\n",
    )


def test_weights_that_timm_would_download(monkeypatch, tmp_path):
    """A stand-in for the download; timm itself adapts the weights to other patches, channels and sizes."""
    torch.manual_seed(1)
    state = timm.create_model("vit_tiny_patch16_224").state_dict()
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", lambda *_, **__: dict(state))
    config = train_config(*SMALL, "model.depth=null", "model.width=null", *TIMM, "model.pretrained=true",
                          "model.patch_size=4", "predictor.width=12")  # fmt: skip
    jepa = build.run(config, tmp_path).module.jepa
    for network in (jepa.context_encoder, jepa.target_encoder):
        assert torch.equal(network.blocks[3].mlp.fc1.weight, state["blocks.3.mlp.fc1.weight"])
        assert network.patch_embed.proj.weight.shape == (192, 1, 4, 4)
    resumed = build.run(config, tmp_path, step=1).module.jepa.context_encoder  # a checkpoint holds its weights
    assert not torch.equal(resumed.blocks[3].mlp.fc1.weight, state["blocks.3.mlp.fc1.weight"])


def test_a_run_with_registers(tmp_path, invoke, capsys):
    run = trained(invoke, tmp_path, "model.registers=2", *tiny())
    assert load_file(run / "encoder.safetensors")["reg_token"].shape == (1, 2, 24)
    assert ijepa.load_encoder(run).spec.registers == 2
    evaluated(invoke, run, "task=pictures")
    for to, line in (("transformers", "has no register tokens"), ("meta", "register tokens")):
        code, err = converted(capsys, run, tmp_path / to, to)
        assert (code, line in err, err.count("\n")) == (2, True, 1)
    assert converted(capsys, run, tmp_path / "bare.pth", "timm")[0] == 0
    back = ijepa.load_encoder(tmp_path / "bare.pth", heads=3)
    images = torch.rand(1, 1, 32, 32)
    there = ijepa.load_encoder(run)
    normalised = (images - there.mean) / there.std
    with torch.no_grad():
        torch.testing.assert_close(back.encoder(normalised), there.encoder(normalised), atol=1e-5, rtol=0)


def test_a_run_with_a_class_of_one_s_own(tmp_path, own, invoke, capsys):
    run = trained(invoke, tmp_path, *own, *tiny("model"))
    assert "_target_: own_encoders.Mixer" in (run / "config.yaml").read_text()
    trust = {"trust": "own_encoders"}
    assert ijepa.load_encoder(run, **trust)(torch.rand(2, 1, 32, 32), last=2).shape == (2, 64, 48)
    evaluated(invoke, run, "task=[knn,logistic]", "trust=own_encoders")
    assert converted(capsys, run, tmp_path / "out.safetensors", "safetensors", "--trust", "own_encoders")[0] == 0
    assert ijepa.load_encoder(tmp_path / "out.safetensors", **trust).spec.name == "own_encoders.Mixer"
    for to in ("timm", "transformers", "meta", "torch-export"):
        code, err = converted(capsys, run, tmp_path / f"{to}.pt", to, "--trust", "own_encoders")
        assert (code, err.count("\n"), "own_encoders.Mixer" in err) == (2, 1, True)
    sys.modules.pop("own_encoders")
    for foreign in (run, tmp_path / "out.safetensors", run / "checkpoints" / "last.ckpt"):
        with pytest.raises(UserError, match=r"model._target_=own_encoders.Mixer: .* add trust=own_encoders$"):
            ijepa.load_encoder(foreign)  # it could name any module
    assert "own_encoders" not in sys.modules
    assert ijepa.load_encoder(run, trust=["own_encoders"]).spec.name == "own_encoders.Mixer"


@pytest.mark.parametrize(
    ("target", "line"),
    [
        ("Mixer", "model.colour=red: no such key; own_encoders.Mixer takes width"),
        ("Narrow", r"model._target_=own_encoders.Narrow: forward\(images, indices\) gives \[1, 63, 15\], expected"),
        ("Leaky", r"model._target_=own_encoders.Leaky: forward\(images, indices\) sees patches that are"),
        ("NoModule", "model._target_=own_encoders.NoModule: is not a torch.nn.Module"),
        ("NoGrid", "model._target_=own_encoders.NoGrid: lacks grid_of"),
        ("Missing", "model._target_=own_encoders.Missing: cannot be imported: AttributeError"),
    ],
)
def test_mistakes_in_a_class_of_one_s_own(own, target, line):
    config = train_config("data=digits")
    extra = {"colour": "red"} if target == "Mixer" else {}
    values = {"_target_": f"own_encoders.{target}", "patch_size": 4, **extra}
    changed = type(config).model_validate({**config.model_dump(), "model": values})
    with pytest.raises(UserError, match=line):
        encoders.spec(changed.model, changed.data)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["model=timm", "model.name=resnet18"], "model.name=resnet18: is not a timm VisionTransformer; try "),
        ([*TIMM, "model.patch_size=5"], "model.patch_size=5: does not divide data.image_size=[32,32]; try 4"),
        ([*TIMM, "predictor.width=10"], "predictor.width=10: not a multiple of 4 and of model.heads=3; try 12"),
        ([*TIMM, "task.knn.k=[1]"], "task.knn.headline"),
        (["model.registers=-1"], "model.registers=-1: should be greater than or equal to 0"),
        ([*TIMM, "+model.registers=1"], "model.registers=1: no such key; model has registers with another option"),
        (["+masking.ratio=0.5"], "masking.ratio=0.5: no such key; masking has ratio with another option"),
    ],
)
def test_mistakes_name_the_key(tmp_path, invoke, arguments, line):
    kept = tiny("model", "predictor")
    code, _, err = invoke("train.py", *kept, *DATA, f"run_dir={tmp_path / 'run'}", *arguments)
    assert (code, err.count("\n")) == (2, 1)
    assert f"error: {line}" in err
