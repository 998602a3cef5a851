"""What composes, what the published recipes hold, and names that stay."""

import itertools

import pytest
from helpers import ROOT, composed, train_config
from omegaconf import OmegaConf

from ijepa.config import TRAINING, EvaluateConfig, StatisticsConfig, TrainConfig
from ijepa.config.checks import check, dotted_keys, parse
from ijepa.run import build
from ijepa.util.errors import UserError

CONF = ROOT / "conf"


OPTIONS = sorted((path.parent.name, path.stem) for path in CONF.glob("*/*.yaml") if not path.stem.startswith("_"))


NEED_A_ROOT = ("folder", "list", "medmnist", "imagenet", "places205", "inat18", "clevr")


@pytest.mark.parametrize(("group", "name"), OPTIONS)
def test_every_option_composes_and_fits_the_schema(group, name):
    extra = (
        ["data.root=X"]
        if name in NEED_A_ROOT or (group == "experiment" and name.startswith(("in", "ablation_in1k")))
        else []
    )
    if name == "reference":
        extra = ["data=digits", "data.image_size=56"]  # it never ends on a grid of 8x8
    if name in ("features", "duplicates", "map"):
        name = f"[knn,{name}]"  # alone it measures nothing
    config = train_config(f"{group}={name}", *extra)
    if name == "pictures":
        with pytest.raises(UserError, match=r"training draws pictures anyway; .* evaluate\.py"):
            check(config)
        return
    check(config)
    assert build.sampler(config).context_patches > 0


@pytest.mark.integration
def test_evaluate_composes():
    tasks = sorted(path.stem for path in (CONF / "task").glob("[!_]*.yaml"))
    for data, task in itertools.product(["digits", "scenes", "folder data.root=X", "stl10"], tasks):
        values = dict(composed("checkpoint=X", f"task={task}", *f"data={data}".split(), name="evaluate"))
        values = OmegaConf.create({name: value for name, value in values.items() if name not in TRAINING - {"model"}})
        chosen = list(parse(EvaluateConfig, values).task.chosen())
        assert len(chosen) == 10 if task == "paper" else f"{task}_".startswith(f"{chosen[0]}_")


PUBLISHED = {  # epochs, warm-up epochs, image side, patch, (D, depth, heads), predictor depth
    "in1k_vitb16": (600, 40, 224, 16, (768, 12, 12), 6),
    "in1k_vitl16": (600, 40, 224, 16, (1024, 24, 16), 12),
    "in1k_vith14": (300, 40, 224, 14, (1280, 32, 16), 12),
    "in1k_vith16_448": (300, 40, 448, 16, (1280, 32, 16), 12),
    "in22k_vith14": (66, 3, 224, 14, (1280, 32, 16), 12),
    "in22k_vitg16": (44, 3, 224, 16, (1408, 40, 16), 16),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_recipes(name):
    epochs, warmup, side, patch, sizes, predictor_depth = PUBLISHED[name]
    config = train_config(f"experiment={name}", "data.root=X")
    model, data, masking, schedule = config.model, config.data, config.masking, config.schedule
    assert (model.width, model.depth, model.heads) == sizes
    assert model.patch_size == patch
    assert model.mlp_ratio == pytest.approx(48 / 11 if "vitg" in name else 4)
    assert (model.positions, model.init) == ("index", "published")
    assert (config.predictor.width, config.predictor.depth, config.predictor.mlp_ratio) == (384, predictor_depth, 4)
    assert data.image_size == [side, side]
    assert (data.batch_size, data.channels, data.flip) == (2048, 3, False)
    assert (data.crop_scale, data.mean, data.std) == ([0.3, 1.0], [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    assert masking.model_dump() == {
        "name": "multiblock",
        "num_targets": 4,
        "target_scale": [0.15, 0.2],
        "target_aspect": [0.75, 1.5],
        "context_scale": [0.85, 1.0],
        "context_patches": None,
        "surplus": "drop",
    }
    assert config.objective.model_dump(exclude={"terms"}) == {
        "distance": "l2",
        "target": "output",
        "normalize_targets": True,
        "target_depths": None,
        "standardize_targets": False,
        "renormalize_targets": False,
        "teacher": None,
        "distance_weight": 1,
        "pixel_weight": 0,
        "variance_weight": 0,
        "covariance_weight": 0,
        "regularize": "context",
    }
    assert config.optimizer.model_dump() == {
        "name": "adamw", "lr": 1e-3, "lr_per_256": False, "betas": [0.9, 0.999], "eps": 1e-8, "clip_grad_norm": None,
    }  # fmt: skip
    assert (schedule.epochs, schedule.max_steps, schedule.warmup_epochs) == (epochs, None, warmup)
    rate = schedule.learning_rate
    assert (rate.shape, rate.start * 1e-3, rate.end * 1e-3) == ("cosine", pytest.approx(2e-4), pytest.approx(1e-6))
    assert schedule.weight_decay.model_dump() == {"shape": "cosine", "start": 0.04, "end": 0.4}
    assert schedule.momentum.model_dump() == {"shape": "linear", "start": 0.996, "end": 1.0}
    header = (CONF / "experiment" / f"{name}.yaml").read_text().splitlines()[:3]
    assert header[1].startswith("# Paper")
    assert f"python train.py experiment={name}" in header[2]


def test_every_field_says_what_it_means():
    def sections(schema):
        for field in schema.model_fields.values():
            yield from [(schema, field)]
            for option in getattr(field.annotation, "__args__", [field.annotation]):
                if hasattr(option, "model_fields"):
                    yield from sections(option)

    for schema in (TrainConfig, EvaluateConfig, StatisticsConfig):
        for owner, field in sections(schema):
            nested = any(hasattr(o, "model_fields") for o in getattr(field.annotation, "__args__", [field.annotation]))
            assert field.description or nested, f"{owner.__name__} has an undocumented field"


def test_image_size_may_be_one_number():
    assert train_config("data.image_size=48").data.image_size == [48, 48]
    assert train_config("data.image_size=[48,64]").data.image_size == [48, 64]


def test_names_that_stay():
    """Scripts and people rely on these."""
    known = set(dotted_keys(TrainConfig)) | set(dotted_keys(EvaluateConfig))
    promised = """run_dir seed resume checkpoint data.root data.image_size data.channels data.batch_size data.workers
    model.patch_size model.width model.depth model.heads predictor.width predictor.depth optimizer.lr schedule.epochs
    schedule.max_steps hardware.accelerator hardware.devices hardware.precision masking.context_patches"""
    assert set(promised.split()) <= known
