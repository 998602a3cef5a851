"""Fine-tuning, on all labels and on few: layer decay judged by timm, mixing by hand, whole trainings on digits."""

import random
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from helpers import composed, train_config
from PIL import Image
from safetensors.torch import load_file
from torch.nn import functional as F

import ijepa
from ijepa.config import Finetune, Lowshot, LowshotFinetune
from ijepa.data.sets import Arrays, Source
from ijepa.evaluation import augmentation, fewlabels, finetune, lowshot
from ijepa.evaluation.context import EvalContext, EvaluatedModel
from ijepa.evaluation.runtime import Runtime
from ijepa.evaluation.tasks import supported_tasks
from ijepa.models.classifier import Classifier
from ijepa.models.pretrained import untrained_encoder
from ijepa.run import build
from ijepa.util.errors import ConfigError


def task(kind=Finetune, **changes):
    name = "finetune" if kind is Finetune else "lowshot_finetune"
    return kind(**{**composed(f"task={name}").task[name], **changes})


def greys(count, seed):
    """Noisy images of 16x16 pixels, dark, grey or bright: 3 classes; and 2, bright ones and others."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count)
    pixels = [80 * label + rng.integers(0, 90, (16, 16)) for label in labels]
    images = [Image.fromarray(picture.astype(np.uint8)) for picture in pixels]
    return Arrays(images, {"class": labels.tolist(), "bright": (labels == 2).astype(int).tolist()}, 1)


@pytest.fixture
def ctx(tmp_path):
    config = train_config("data=digits", "data.image_size=16", "model.width=24", "model.depth=2", "model.heads=3",
                          "data.workers=0")  # fmt: skip
    data = build.data(config.data, Source(greys(256, 0), greys(64, 1)), None, 0, config.hardware, 0)
    encoder = untrained_encoder(build.spec(config.model, config.data), 0)
    ctx = EvalContext(data, Runtime(torch.device("cpu")), 0, quiet=True, folder=tmp_path, write_models=True)
    return ctx, EvaluatedModel("random init", encoder)


def short(kind=Finetune, **changes):
    values = {"epochs": 6, "warmup_epochs": 1, "batch_size": 32, "lr": 5e-3, "layer_decay": 1.0, "crop_scale": None,
              "flip": False, "randaugment": None}  # fmt: skip
    return task(kind, **{**values, **changes})


def test_layer_decay_is_timm_s():
    encoder = untrained_encoder(build.spec(config := train_config("model=vit_tiny").model, train_config().data), 0)
    network = Classifier(encoder, {"class": 7}, 0.0)
    groups = finetune.build_optimizer(task(weight_decay=0.1), network).param_groups
    judge = timm.models.VisionTransformer(
        img_size=48, patch_size=config.patch_size, embed_dim=192, depth=12, num_heads=3, num_classes=7,
        class_token=False, global_pool="avg", fc_norm=False, pos_embed="none",
    )  # fmt: skip
    theirs = timm.optim.param_groups_layer_decay(judge, 0.1, layer_decay=0.75)
    expected = {name: (g["lr_scale"], g["weight_decay"]) for name, g in by_name(judge, theirs).items()}
    ours = {
        name.removeprefix("pretrained.encoder.").replace("heads.class", "head"): (g["lr_scale"], g["weight_decay"])
        for name, g in by_name(network, groups).items()
    }
    assert ours == expected
    assert ours["head.weight"] == (1.0, 0.1)
    assert ours["patch_embed.proj.weight"][0] == pytest.approx(0.75**13)  # 12 blocks, then norm and head


def by_name(network, groups):
    names = {parameter: name for name, parameter in network.named_parameters()}
    return {names[parameter]: group for group in groups for parameter in group["params"]}


def test_mixup_and_cutmix_say_what_they_did():
    images = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    state = random.getstate(), np.random.get_state()[1].tolist()
    blended, weights = finetune.mix(task(mixup=0.8, cutmix=0), images, 3)
    torch.testing.assert_close(blended, torch.einsum("ij,jchw->ichw", weights, images))
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(8))
    pasted, weights = finetune.mix(task(mixup=0, cutmix=1.0), images, 4)
    kept = (pasted == images).all(dim=1).double().mean(dim=(1, 2))
    torch.testing.assert_close(weights.diagonal().double(), kept)
    assert 0 < kept[0] < 1
    assert ((pasted == images) | (pasted == images.flip(0))).all()
    again, _ = finetune.mix(task(mixup=0, cutmix=1.0), images, 4)
    assert torch.equal(again, pasted)
    assert torch.equal(finetune.mix(task(), images, 0)[0], images)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == state


def test_smoothed_targets_are_torch_s():
    labels, logits = torch.tensor([0, 2, 1]), torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    ours = F.cross_entropy(logits, finetune.smoothed_targets(labels, 5, 0.1))
    torch.testing.assert_close(ours, F.cross_entropy(logits, labels, label_smoothing=0.1))


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_randaugment_is_a_function_of_the_seed(ctx, mode):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8)).convert(mode)
    images = type("Images", (), {"read": lambda self, index: picture})()
    augment = augmentation.Augment(None, True, ctx[0].data.eval_transform, "rand-m9-mstd0.5-inc1")
    state = random.getstate(), torch.get_rng_state()
    shown = [augment(images, 0, seed) for seed in range(6)]
    assert all(view.shape == (len(mode), 16, 16) and view.min() >= 0 and view.max() <= 1 for view in shown)
    assert len({view.sum().item() for view in shown}) > 3  # half of the time an operation is left out
    assert all(torch.equal(view, augment(images, 0, seed)) for seed, view in enumerate(shown))
    assert random.getstate() == state[0]
    assert torch.equal(torch.get_rng_state(), state[1])


@pytest.mark.integration
def test_a_network_is_learnt_and_goes_elsewhere(ctx, tmp_path):
    ctx, evaluated = ctx
    before = {name: tensor.clone() for name, tensor in evaluated.encoder.state_dict().items()}
    chosen = short(labels=["class"])
    found = finetune.FinetuneTask(chosen).evaluate(evaluated, ctx)["class"].results["finetune"]
    assert found.value > 0.9
    assert all(torch.equal(tensor, before[name]) for name, tensor in evaluated.encoder.state_dict().items())
    file = tmp_path / "finetuned-random-init.safetensors"
    assert ctx.files == [file]
    again = finetune.FinetuneTask(chosen).evaluate(evaluated, ctx)["class"].results["finetune"]
    assert torch.equal(again.per_image, found.per_image)
    judge = timm.models.VisionTransformer(
        img_size=16, patch_size=4, in_chans=1, embed_dim=24, depth=2, num_heads=3, num_classes=3,
        class_token=False, global_pool="avg", fc_norm=False,
    ).eval()  # fmt: skip
    judge.load_state_dict(load_file(file), strict=True)
    images = torch.stack([ctx.data.eval_transform(ctx.data.source.val.read(i)) for i in range(64)])
    encoder = ijepa.load_encoder(file)
    labels = torch.tensor(ctx.data.source.val.labels["class"])
    with torch.no_grad():
        right = judge((images - encoder.mean) / encoder.std).argmax(dim=1) == labels
    assert torch.equal(right.double(), found.per_image[:, 0])
    assert finetune.FinetuneTask(chosen).evaluate(EvaluatedModel("raw pixels", None), ctx) == {}


@pytest.mark.integration
def test_several_label_sets_share_a_network(ctx):
    ctx, evaluated = ctx
    found = finetune.FinetuneTask(short(mixup=0.2, cutmix=0.2, epochs=10)).evaluate(evaluated, ctx)
    assert {name: theirs.results["finetune"].value > 0.8 for name, theirs in found.items()} == {
        "class": True, "bright": True
    }  # fmt: skip


@pytest.mark.integration
def test_few_labels(ctx, tmp_path):
    ctx, evaluated = ctx
    listed = tmp_path / "listed.txt"
    listed.write_text("".join(f"image {i}\n" for i in range(100)))
    chosen = short(LowshotFinetune, shares=[], shots=[8], lists=[str(listed)], draws=2, epochs=8)
    everything = lowshot.LowshotFinetuneTask(chosen).evaluate(evaluated, ctx)
    assert list(everything) == ["class", "bright"]
    found = everything["class"]
    promised = [spec.name for spec in lowshot.LowshotFinetuneTask(chosen).metrics(True)]
    assert list(found.results) == promised == ["lowshot_finetune_8shot", "lowshot_finetune_listed"]
    assert found.details["lowshot_finetune_8shot"]["images"] == 24
    assert found.details["lowshot_finetune_listed"]["images"] == 100
    assert found.details["lowshot_finetune_listed"]["deviation"] is None
    assert len(found.details["lowshot_finetune_8shot"]["draws"]) == 2
    assert found.results["lowshot_finetune_listed"].value > 0.8
    assert lowshot.LowshotFinetuneTask(chosen).evaluate(EvaluatedModel("raw pixels", None), ctx) == {}
    assert list(lowshot.LowshotTask(composed_lowshot(listed)).evaluate(evaluated, ctx)["class"].results) == [
        "lowshot_listed"
    ]


def composed_lowshot(listed):
    values = {**composed("task=lowshot").task.lowshot, "shares": [], "shots": [], "lists": [str(listed)]}
    return Lowshot(**values)


def test_a_list_names_images_by_the_ends_of_their_paths(tmp_path):
    names = [f"/images/{kind}/{i}.png" for kind in ("a", "b") for i in range(3)] + ["/images/b/only.png"]
    file = tmp_path / "some.txt"
    file.write_text("a/1.png\nonly.png\n\nb/1.png\n")
    assert fewlabels.listed_rows(file, names, "key").tolist() == [1, 4, 6]
    for text, problem in (("1.png\n", "more than one"), ("x.png\n", "x.png is no training image"), ("\n", "empty")):
        file.write_text(text)
        with pytest.raises(ConfigError, match=problem):
            fewlabels.listed_rows(file, names, "key")


class Floats:
    """Images in units of their own."""

    labels = {"class": [0], "bright": [1]}  # noqa: RUF012

    def __len__(self):
        return 1

    def read(self, index):
        return torch.full((1, 16, 16), 300.0)

    def name(self, index):
        return "float"


def test_what_cannot_be(ctx, tmp_path):
    ctx, _ = ctx
    for chosen, problem in (
        (task(labels=["colour"]), "no labels colour; try class, bright"),
        (task(randaugment="auto"), "should look like rand-m9"),
    ):
        with pytest.raises(ConfigError, match=problem):
            finetune.FinetuneTask(chosen).validate(ctx.data)
    floats = replace(ctx.data.source, train=Floats())
    ctx.data.source, before = floats, ctx.data.source
    with pytest.raises(ConfigError, match="supports 8-bit pictures"):
        finetune.FinetuneTask(task(randaugment="rand-m9")).validate(ctx.data)
    ctx.data.source = before
    ctx.data.channels = 12
    with pytest.raises(ConfigError, match=r"not 12; try task\.finetune\.randaugment=null"):
        finetune.FinetuneTask(task(randaugment="rand-m9")).validate(ctx.data)
    with pytest.raises(ConfigError, match="needs at least one value here"):
        lowshot.LowshotFinetuneTask(task(LowshotFinetune, shares=[])).validate(ctx.data)
    two = [tmp_path / name / "some.txt" for name in ("a", "b")]
    for file in two:
        file.parent.mkdir()
        file.write_text("image 0\n")
    with pytest.raises(ConfigError, match="two results would be named some; rename a file"):
        lowshot.LowshotFinetuneTask(task(LowshotFinetune, lists=[str(file) for file in two])).validate(ctx.data)
    two[0].write_text("image 1000\n")
    with pytest.raises(ConfigError, match="image 1000 is no training image"):
        lowshot.LowshotFinetuneTask(task(LowshotFinetune, lists=[str(two[0])])).validate(ctx.data)
    with pytest.raises(ConfigError, match="no such file: /none"):
        lowshot.LowshotFinetuneTask(task(LowshotFinetune, lists=["/none"])).validate(ctx.data)
    chosen = train_config("task=[knn,count,finetune]").task
    kept, left = supported_tasks(chosen, ctx.data)
    assert list(kept.chosen()) == ["knn", "finetune"]
    assert left == {"count": "the images have no labels count; try class, bright"}
