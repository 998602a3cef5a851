"""Dense probes: metrics by hand and against torchmetrics, heads against torch alone, whole evaluations."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import train_config
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex
from torchmetrics.segmentation import MeanIoU

import ijepa
from ijepa import pictures
from ijepa.config import Depth, Segmentation
from ijepa.data import sources
from ijepa.data.sets import read_map
from ijepa.evaluation import dense
from ijepa.evaluation.context import EvalContext, EvaluatedModel
from ijepa.evaluation.features import pixel_patches
from ijepa.evaluation.pixelheads import PixelHeads, upsample
from ijepa.evaluation.runtime import Runtime
from ijepa.evaluation.targets import ClassTarget, DepthTarget
from ijepa.models.pretrained import untrained_encoder
from ijepa.run import build
from ijepa.util.errors import ConfigError, UserError

NAN, INF = float("nan"), float("inf")


def test_depth_by_hand():
    truth = torch.tensor([[[1.0, 2.0], [4.0, 0.0]], [[10.0, NAN], [INF, 8.0]], [[0.0, 0.0], [NAN, -1.0]]])
    guess = torch.tensor([[[1.2, 2.6], [3.0, 9.0]], [[8.1, 1.0], [1.0, 8.0]], [[5.0, 5.0], [5.0, 5.0]]])
    found = DepthTarget().results(DepthTarget().outcomes(guess.log()[:, None], truth))
    # 1.2, 1.3 and 1.33 times too much or too little; 1.23 and none; the third image knows nothing
    assert found["depth_delta1"].value == pytest.approx((1 / 3 + 1) / 2)
    errors = [((0.2**2 + 0.6**2 + 1) / 3) ** 0.5, (1.9**2 / 2) ** 0.5]
    assert found["depth_rmse"].value == pytest.approx(np.mean(errors), rel=1e-5)
    away = torch.tensor([[1.2, 1.3, 0.75, NAN], [0.81, 1, NAN, NAN]]).log()
    squares = away.square().nanmean(dim=1) - 0.5 * away.nanmean(dim=1) ** 2
    loss = DepthTarget().loss(guess.log()[:, None].requires_grad_(), truth)
    torch.testing.assert_close(loss.detach(), squares.mean())
    assert DepthTarget().start(truth).item() == pytest.approx(np.log([1, 2, 4, 10, 8]).mean())


def test_gradients_of_unknown_depths_are_zero():
    guess = torch.zeros(1, 1, 1, 3, requires_grad=True)
    DepthTarget().loss(guess, torch.tensor([[[NAN, 2.0, INF]]])).backward()
    assert guess.grad.flatten().tolist() == [0, pytest.approx(-np.log(2)), 0]
    DepthTarget().loss(guess, torch.full((1, 1, 3), NAN)).backward()
    assert guess.grad.isfinite().all()


def test_classes_by_hand():
    truth = torch.tensor([[[0, 0, 1], [1, -1, 1]], [[0, 0, 0], [0, 3, -1]]])
    guess = torch.tensor([[[0, 1, 1], [1, 1, 2]], [[0, 0, 0], [0, 0, 0]]])
    target = ClassTarget(5)
    found = target.results(target.outcomes(F.one_hot(guess, 5).movedim(-1, 1).float(), truth))
    # 0: 5 of 7, 1: 2 of 4, 3: 0 of 1; 2 is predicted but occurs in no map, 4 neither
    assert found["segmentation_miou"].value == pytest.approx((5 / 7 + 2 / 4 + 0) / 3)
    assert found["segmentation_accuracy"].value == pytest.approx(7 / 10)


def test_classes_as_torchmetrics_counts_them():
    generator = torch.Generator().manual_seed(0)
    truth = torch.randint(-1, 4, (6, 8, 10), generator=generator)
    logits = torch.randn(6, 4, 8, 10, generator=generator) + F.one_hot(truth.clamp(min=0), 4).movedim(-1, 1)
    found = ClassTarget(4).results(ClassTarget(4).outcomes(logits, truth))
    expected = {
        "segmentation_miou": MulticlassJaccardIndex(4, ignore_index=-1),
        "segmentation_accuracy": MulticlassAccuracy(4, average="micro", ignore_index=-1),
    }
    for name, metric in expected.items():
        assert found[name].value == pytest.approx(metric(logits, truth).item(), abs=1e-6)
    one = ClassTarget(4).results(ClassTarget(4).outcomes(logits[:1], truth[:1].clamp(min=0)))
    metric = MeanIoU(4, input_format="index")
    assert one["segmentation_miou"].value == pytest.approx(
        metric(logits[:1].argmax(dim=1), truth[:1].clamp(min=0)).item(), abs=1e-6
    )
    loss = F.cross_entropy(logits.movedim(1, -1)[truth >= 0], truth[truth >= 0])
    torch.testing.assert_close(ClassTarget(4).loss(logits, truth), loss)


def test_the_interval_of_a_miou_is_that_of_resampled_images():
    generator = torch.Generator().manual_seed(0)
    truth = torch.randint(0, 3, (40, 4, 4), generator=generator)
    rare = torch.rand(40, generator=generator) < 0.1
    truth[rare, 0, 0] = 3
    logits = torch.randn(40, 4, 4, 4, generator=generator) + F.one_hot(truth, 4).movedim(-1, 1)
    found = ClassTarget(4).results(ClassTarget(4).outcomes(logits, truth))["segmentation_miou"]
    draws = []
    guess = logits.argmax(dim=1)
    rng = np.random.default_rng(0)
    for _ in range(400):
        rows = torch.from_numpy(rng.integers(0, 40, 40))
        ious = []
        for index in truth[rows].unique():
            mine, theirs = guess[rows] == index, truth[rows] == index
            ious.append(((mine & theirs).sum() / (mine | theirs).sum()).item())
        draws.append(np.mean(ious))
    low, high = np.quantile(draws, [0.025, 0.975])
    assert found.interval(0) == (pytest.approx(low, abs=0.02), pytest.approx(high, abs=0.02))
    assert found.interval(0)[0] < found.value < found.interval(0)[1]


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("target", [DepthTarget(), ClassTarget(3)])
def test_each_head_is_one_that_torch_trains_alone(batch_norm, target):
    rates, decays, grid = [0.1, 0.01], [0.0, 0.3], (2, 3)
    start = torch.linspace(1, 2, target.outputs)
    heads = PixelHeads(6, start, rates, decays, batch_norm, torch.Generator().manual_seed(0))
    alone = []
    for i, (rate, decay) in enumerate(zip(rates, decays, strict=True)):
        layer = nn.Conv2d(6, target.outputs, 1)
        layer.weight.data, layer.bias.data = heads.weights[i].T[..., None, None].clone(), heads.biases[i].data.clone()
        norm = nn.BatchNorm2d(6, affine=False, momentum=None) if batch_norm else nn.Identity()
        network = nn.Sequential(norm, layer, nn.Upsample((8, 12), mode="bilinear"))
        groups = [{"params": [layer.weight], "weight_decay": decay}, {"params": [layer.bias], "weight_decay": 0}]
        alone.append((network, torch.optim.AdamW(groups, lr=rate)))
    generator = torch.Generator().manual_seed(1)
    for step in range(4):
        features = torch.randn(5, 6, 6, generator=generator)
        maps = torch.randint(0, 3, (5, 8, 12), generator=generator)
        maps = maps.float() if target.kind == "depth" else maps - 1
        heads.backward(target, features, grid, maps)
        heads.step(0.5**step)
        for (network, optimizer), rate in zip(alone, rates, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate * 0.5**step
            optimizer.zero_grad()
            target.loss(network(features.transpose(1, 2).unflatten(2, grid)), maps).backward()
            optimizer.step()
    heads.eval()
    for i, (patches, (network, _)) in enumerate(zip(heads(features), alone, strict=True)):
        expected = network.eval()(features.transpose(1, 2).unflatten(2, grid))
        torch.testing.assert_close(upsample(patches, grid, maps), expected, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(heads.linear(i)(features.flatten(0, 1)), patches, atol=1e-5, rtol=1e-4)


def test_pixels_of_patches_are_in_the_encoder_s_order():
    images = torch.arange(2 * 3 * 4 * 6.0).view(2, 3, 4, 6)
    patches = pixel_patches(images, 2)
    assert patches.shape == (2, 6, 12)
    assert torch.equal(patches[1, 4].view(3, 2, 2), images[1, :, 2:4, 2:4])  # second row, second of three


def task(kind, **changes):
    values = {"epochs": 2, "min_steps": 20, "batch_size": 16, "lr": [0.01, 0.1], "weight_decay": [0], "layers": [1, 2],
              "batch_norm": [True], "holdout": 0.2, "examples": 3}  # fmt: skip
    return kind(**{**values, **changes})


def task_of(section):
    return {Depth: dense.DepthTask, Segmentation: dense.SegmentationTask}[type(section)](section)


@pytest.fixture
def ctx(tmp_path):
    config = train_config("data=scenes", "data.scenes.train=60", "data.scenes.val=12", "data.image_size=[16,24]",
                          "data.workers=0", "model.width=24", "model.depth=2")  # fmt: skip
    source = sources.build(config.data, 0)
    source.prepare()
    data = build.data(config.data, source, None, 0, config.hardware, 0)
    spec = build.spec(config.model, config.data)
    return EvalContext(data, Runtime(torch.device("cpu")), 0, folder=tmp_path, quiet=True), spec


def test_scenes_own_maps_are_a_perfect_prediction(ctx):
    images = ctx[0].data.source.val
    depth = torch.stack([read_map(images, index, "depth") for index in range(12)])
    found = DepthTarget().results(DepthTarget().outcomes(depth.clamp(min=1e-9).log()[:, None], depth))
    assert found["depth_delta1"].value == 1
    assert found["depth_rmse"].value == pytest.approx(0, abs=1e-4)
    classes = torch.stack([read_map(images, index, "segmentation") for index in range(12)])
    results = ClassTarget(4).results(ClassTarget(4).outcomes(F.one_hot(classes, 4).movedim(-1, 1).float(), classes))
    assert {name: result.value for name, result in results.items()} == {
        "segmentation_miou": 1, "segmentation_accuracy": 1,
    }  # fmt: skip


@pytest.mark.integration
@pytest.mark.parametrize("kind", [Depth, Segmentation])
def test_a_probe_of_scenes(ctx, kind):
    ctx, spec = ctx
    evaluated = EvaluatedModel("random init", untrained_encoder(spec, 0))
    found = task_of(task(kind)).evaluate(evaluated, ctx)[""]
    assert list(found.results) == [spec.name for spec in task_of(task(kind)).metrics(True)]
    heads = found.details["heads"]
    assert [(head["layers"], head["lr"]) for head in heads] == [(1, 0.01), (1, 0.1), (2, 0.01), (2, 0.1)]
    by, best = ("depth_rmse", min) if kind is Depth else ("segmentation_miou", max)
    chosen = best(heads, key=lambda head: head[f"holdout_{by}"])
    assert {name: chosen[name] for name in found.details["chosen"]} == found.details["chosen"]
    assert found.results[by].value == chosen[f"test_{by}"]
    low, high = found.results[by].interval(0)
    assert low <= found.results[by].value <= high
    if kind is Segmentation:
        assert np.mean([iou for iou in found.details["iou"] if iou is not None]) == pytest.approx(chosen[f"test_{by}"])
    (path,) = task_of(task(kind)).write(evaluated, ctx, ctx.folder)
    with Image.open(path) as image:
        assert image.width > image.height * 0.9  # three rows of three wide pictures
    again = task_of(task(kind)).evaluate(evaluated, ctx)[""]
    assert again.details == found.details


@pytest.mark.integration
@pytest.mark.parametrize("kind", [Depth, Segmentation])
def test_the_head_that_is_left_has_the_measured_accuracy(ctx, kind):
    """On images as large as those of the evaluation."""
    ctx, spec = ctx
    ctx = replace(ctx, write_models=True)
    chosen = task_of(task(kind))
    result = chosen.evaluate(EvaluatedModel("target encoder", untrained_encoder(spec, 0)), ctx)[""]
    written = chosen.write(EvaluatedModel("target encoder", untrained_encoder(spec, 0)), ctx, ctx.folder)
    assert ctx.folder / f"{chosen.name}.safetensors" in written
    predictor = ijepa.load_dense(ctx.folder)
    assert predictor.description.facts["validation"] == {n: r.value for n, r in result.results.items()}
    val = ctx.data.source.val
    guess = torch.stack(list(predictor.predict(val.read(index) for index in range(len(val)))))
    truth = torch.stack([read_map(val, index, chosen.name) for index in range(len(val))])
    target = chosen.target(ctx)
    outputs = guess.log()[:, None] if kind is Depth else F.one_hot(guess, target.outputs).movedim(-1, 1).float()
    for name, found in target.results(target.outcomes(outputs, truth)).items():
        assert found.value == pytest.approx(result.results[name].value, rel=1e-4)
    assert not chosen.write(EvaluatedModel("raw pixels", None, baseline=True), replace(ctx, scratch={
        f"{chosen.name} raw pixels": (torch.empty(0),) * 3}), ctx.folder)  # fmt: skip


@pytest.mark.integration
def test_what_is_known_of_pixels_is_found(ctx, monkeypatch):
    """Depth that the pixels themselves show: a probe of pixels, without positions, learns it."""
    ctx, _ = ctx
    for images in (ctx.data.source.train, ctx.data.source.val):
        monkeypatch.setattr(type(images), "read_map", lambda self, index, kind: torch.from_numpy(
            1 + np.asarray(self.images[index]).mean(axis=-1) / 255).float())  # fmt: skip
    evaluated = EvaluatedModel("raw pixels", None, pixel_patch_size=4)
    found = task_of(task(Depth, min_steps=80)).evaluate(evaluated, ctx)[""]
    assert len(found.details["heads"]) == 2  # pixels have no layers
    assert found.results["depth_delta1"].value > 0.97
    constant = task_of(task(Depth, lr=[1e-9])).evaluate(evaluated, ctx)[""].results["depth_rmse"].value
    assert found.results["depth_rmse"].value < 0.6 * constant


def test_values_that_are_no_classes_are_refused(ctx, monkeypatch):
    ctx, spec = ctx
    ids = torch.full((16, 24), 26001)
    monkeypatch.setattr(type(ctx.data.source.val), "read_map", lambda self, index, kind: ids)
    with pytest.raises(UserError, match="values up to 26001; use class indices up to 4095"):
        task_of(task(Segmentation)).evaluate(EvaluatedModel("random init", untrained_encoder(spec, 0)), ctx)


def test_pictures_of_many_classes_and_of_unknown_depths():
    images, truth = torch.rand(2, 3, 8, 12), torch.randint(-1, 40, (2, 8, 12))
    figure = pictures.classes(images, truth, truth)
    shown = [axes.images[0].get_array() for axes in figure.axes]
    pairs = zip(truth[0].flatten().tolist(), shown[1].reshape(-1, 3), strict=True)
    colours = {index: tuple(colour) for index, colour in pairs}
    assert len(set(colours.values())) == len(colours)  # each class has its own
    np.testing.assert_array_equal(shown[1], shown[2])
    depth = torch.full((2, 8, 12), NAN)
    figure = pictures.depths(images, depth, torch.full((2, 8, 12), INF))
    assert np.unique(figure.axes[1].images[0].get_array()).tolist() == [pytest.approx(pictures.HIDDEN)]


def test_images_without_maps_are_refused():
    config = train_config("data=digits", "data.workers=0")
    data = build.data(config.data, sources.build(config.data, 0), None, 0, config.hardware, 0)
    with pytest.raises(ConfigError, match=r"^data.segmentation_root=null: task=segmentation needs data=folder with"):
        task_of(task(Segmentation)).validate(data)


@pytest.mark.slow
def test_evaluate_on_folders_of_maps(finished, mapped, invoke):
    folder, _ = finished
    (mapped / "depth" / "train" / "cold" / "train-3.png").unlink()
    Image.new("I;16", (30, 40)).save(mapped / "depth" / "val" / "warm" / "val-1.png")
    output = mapped / "output"
    roots = [f"data.depth_root={mapped}/depth", "data.depth_scale=0.001", f"data.segmentation_root={mapped}/classes"]
    small = [f"task.{kind}.{key}" for kind in ("depth", "segmentation")
             for key in ("layers=[1,2]", "min_steps=40", "epochs=1", "lr=[0.1]")]  # fmt: skip
    code, text, error = invoke("evaluate.py", f"checkpoint={folder}", "task=[depth,segmentation]", *roots, *small,
                               f"output={output}")  # fmt: skip
    assert code == 0, error
    assert text.count("unreadable, skipped in the evaluation: ") == 2
    assert "train-3.png (has no depth map " in text
    assert "val-1.png (its depth map has 30x40 pixels, the image has 52x40)" in text
    written = json.loads((output / "metrics.json").read_text())
    for name in ("target encoder", "random init", "raw pixels"):
        results, details = written["results"][name], written["details"][name]
        assert list(results) == ["depth_delta1", "depth_rmse", "segmentation_miou", "segmentation_accuracy"]
        assert (details["depth"][""]["images"], details["segmentation"][""]["images"]) == (7, 8)
        assert [len(details[kind][""]["left_out"]) for kind in ("depth", "segmentation")] == [2, 0]
        for metric, (low, high) in written["intervals"][name].items():
            assert low <= results[metric] <= high
        for kind in ("depth", "segmentation"):
            assert (output / f"{kind}-{name.replace(' ', '-')}.png").is_file()
    assert written["results"]["raw pixels"]["depth_delta1"] > 0.6  # metres: in millimetres it could not begin to fit
    assert text.count("depth_delta1") == 1
    assert text.count("segmentation_miou") == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "starts"),
    [
        (["task=depth"], "data.depth_root=null: task=depth needs data=folder with a folder of depth maps"),
        (["task=segmentation", "data.depth_root={root}/depth"], "data.segmentation_root=null: task=segmentation needs"),
        (["task=depth", "data.depth_root={root}/nowhere"], "data.depth_root={root}/nowhere: no such folder"),
        (["task=depth", "data.depth_root={root}"], "data.depth_root={root}: has no map for any of 24 images; "),
        (["task=depth", "data.depth_scale=0"], "data.depth_scale=0: should be greater than 0"),
        (["task=depth", "task.depth.layers=[3]", "data.depth_root={root}/depth"], "task.depth.layers=[3]: the encoder"),
        (["task=depth", "data.depth_root={root}/small"], "no training image has a readable depth map; "),
    ],
)
def test_a_mistake_is_one_line(finished, mapped, invoke, arguments, starts):
    shutil.copytree(mapped / "depth", mapped / "small")
    for path in (mapped / "small").rglob("*.png"):
        Image.new("I;16", (3, 3)).save(path)
    values = [argument.format(root=mapped) for argument in arguments]
    kind = values[0].removeprefix("task=")
    if not any("layers" in value for value in values):
        values.append(f"task.{kind}.layers=[1]")  # the encoder here has two blocks
    code, _, error = invoke("evaluate.py", f"checkpoint={finished[0]}", *values, f"output={mapped}/output")
    assert code == 2
    assert error.startswith(f"error: {starts.format(root=mapped)}"), error
    assert error.count("\n") == 1
