"""What composes, what the published recipes hold, and what is refused with which line."""

import itertools

import pytest
from helpers import ROOT, composed, train_config
from omegaconf import OmegaConf

from ijepa.cli.explain import explain
from ijepa.config import TRAINING, EvaluateConfig, StatisticsConfig, TrainConfig
from ijepa.config.checks import check, keys, parse
from ijepa.distributed import devices
from ijepa.run import build
from ijepa.util.errors import UserError

CONF = ROOT / "conf"
OPTIONS = sorted((path.parent.name, path.stem) for path in CONF.glob("*/*.yaml") if not path.stem.startswith("_"))
NEED_A_ROOT = ("folder", "imagenet", "places205", "inat18", "clevr")


@pytest.mark.parametrize(("group", "name"), OPTIONS)
def test_every_option_composes_and_fits_the_schema(group, name):
    extra = (
        ["data.root=X"]
        if name in NEED_A_ROOT or (group == "experiment" and name.startswith(("in", "ablation_in1k")))
        else []
    )
    if name == "reference":
        extra = ["data=digits", "data.image_size=56"]  # it never ends on a grid of 8x8
    if name == "features":
        name = "[knn,features]"  # alone it measures nothing
    config = train_config(f"{group}={name}", *extra)
    if name == "pictures":
        with pytest.raises(UserError, match=r"training draws pictures anyway; .* evaluate\.py"):
            check(config)
        return
    check(config)
    assert build.sampler(config).context_patches > 0


def test_evaluate_composes():
    tasks = sorted(path.stem for path in (CONF / "task").glob("*.yaml"))
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
    assert (config.predictor.width, config.predictor.depth) == (384, predictor_depth)
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
    assert config.objective.model_dump() == {
        "distance": "l2",
        "target": "output",
        "normalize_targets": True,
        "variance_weight": 0,
        "covariance_weight": 0,
        "regularize": "context",
    }
    assert config.optimizer.model_dump() == {
        "lr": 1e-3, "lr_per_256": False, "betas": [0.9, 0.999], "eps": 1e-8, "clip_grad_norm": None,
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
    known = set(keys(TrainConfig)) | set(keys(EvaluateConfig))
    promised = """run_dir seed resume checkpoint data.root data.image_size data.channels data.batch_size data.workers
    model.patch_size model.width model.depth model.heads predictor.width predictor.depth optimizer.lr schedule.epochs
    schedule.max_steps hardware.accelerator hardware.devices hardware.precision masking.context_patches"""
    assert set(promised.split()) <= known


@pytest.mark.parametrize(
    ("override", "starts", "mentions"),
    [
        ("optimizer.lrr=1", "optimizer.lrr=1: ", "optimizer.lr?"),
        ("modle=vit_tiny", "modle=vit_tiny: ", "model?"),
        ("model=vit_tinny", "model=vit_tinny: ", "vit_tiny?"),
        ("+foo=1", "foo=1: ", "run_dir"),
        ("+model.foo=1", "model.foo=1: ", "model.depth"),
        ("optimizer.lr=abc", "optimizer.lr=abc: ", "number"),
        ("optimizer.lr=-1", "optimizer.lr=-1: ", "greater than 0"),
        ("model.depth=2.5", "model.depth=2.5: ", "integer"),
        ("data.image_size=[32,32,32]", "data.image_size=[32,32,32]: ", "2 items"),
        ("hardware.precision=fp8", "hardware.precision=fp8: ", "bf16-mixed"),
        ("masking.name=checkers", "masking.name=checkers: ", "rasterized"),
        ("model.patch_size=5", "model.patch_size=5: ", "try 4"),
        ("data.image_size=[30,32]", "model.patch_size=4: ", "[30,32]"),
        ("model.heads=5", "model.width=96: ", "try 100"),
        ("predictor.width=50", "predictor.width=50: ", "try 48"),
        ("data.mean=[0.1,0.2]", "data.mean=[0.1,0.2]: ", "data.channels=1"),
        ("data.crop_scale=[0.9,0.3]", "data.crop_scale=[0.9,0.3]: ", "low <= high"),
        ("masking.target_scale=[0.1,1.2]", "masking.target_scale=[0.1,1.2]: ", "<= 1"),
        ("masking.target_scale=[0.9,1.0]", "masking.target_scale=[0.9,1.0]: ", "leave no context"),
        ("hardware.accumulation=3", "data.batch_size=64: ", "try 66"),
        ("task.knn.headline=33", "task.knn.headline=33: ", "10,20,100,200"),
        ("data.root=a,b", "data.root=a,b: ", "-m"),
        ("data.root=a=b", "data.root=a=b: ", "quote"),
        ("data=folder", "data.root is not set", "data.root="),
        ("schedule.epochs=inf", "schedule.epochs=inf: ", "finite"),
        ("model.depth=true", "model.depth=true: ", "number"),
        ("optimizer.betas=[0.9,1.0]", "optimizer.betas=1.0: ", "less than 1"),
        ("seed=99999999999999999999999", "seed=99999999999999999999999: ", "less than"),
        ("model.position_grid=[4,4]", "model.position_grid=[4,4]: ", "model.positions=scaled"),
        ("experiment=nope", "experiment=nope: ", "smoke"),
        ("optimizer.lr=true", "optimizer.lr=true: ", "number"),
        ("data.image_size=true", "data.image_size=true: ", "number"),
        ("schedule.momentum.end=1.5", "schedule.momentum.end=1.5: ", "less than or equal to 1"),
        ("masking.name=random", "masking.ratio is not set", "masking.ratio="),
        ("~model.width", "model.width is not set", "model.width="),
        ("checkpoint=x", "checkpoint=x: ", "try run_dir"),
        ("optimizer.lr=${nope}", "optimizer.lr: ", "nope"),
    ],
)
def test_a_fault_is_one_line_that_says_what_would_do(override, starts, mentions):
    def run():
        config = train_config("data=digits", override)
        check(config)
        build.sampler(config)

    with pytest.raises(Exception) as caught:  # noqa: PT011  # Hydra's own errors, too
        run()
    line = explain(caught.value, [override])
    assert "\n" not in line
    assert line.startswith(starts)
    assert mentions in line


def test_regularisers_need_the_whole_batch():
    with pytest.raises(UserError, match=r"^objective.variance_weight=0.5: .*no gradient accumulation"):
        check(train_config("objective=variance_covariance", "hardware.accumulation=2"))


def test_processes_of_torchrun_that_would_train_alone(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match=r"^hardware.devices=1: torchrun has started 2"):
        build.run(train_config("data=digits"), tmp_path)


@pytest.mark.parametrize(
    ("allocated", "options", "told"),
    [
        ({"STEP_NUM_TASKS": "2"}, [], "hardware.devices=1: srun has started 2 tasks; try hardware=slurm"),
        (
            {"NTASKS": "2"},
            ["hardware.devices=2", "hardware.strategy=ddp"],
            "hardware.devices=2: --ntasks does not fix",
        ),
    ],
)
def test_tasks_of_slurm_that_would_train_alone(monkeypatch, tmp_path, allocated, options, told):
    for name, value in {"JOB_ID": "7", "JOB_NAME": "train", "NTASKS": "1", **allocated}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    with pytest.raises(UserError, match=f"^{told}"):
        build.run(train_config("data=digits", "hardware=cpu", *options), tmp_path)


@pytest.mark.parametrize(
    "allocated",
    [{"NTASKS": "8"}, {"NTASKS": "4", "NTASKS_PER_NODE": "4"}, {"NTASKS": "4", "STEP_NUM_TASKS": "1"}],
    ids=["cores asked for as tasks", "one process of a job", "one step of many"],
)
def test_one_process_is_no_concern_of_slurm_s(monkeypatch, tmp_path, allocated):
    for name, value in {"JOB_ID": "7", "JOB_NAME": "train", **allocated}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    run = build.run(train_config("data=digits", "hardware=cpu"), tmp_path)
    assert run.trainer.world_size == 1


def test_hardware_that_is_not_there():
    import torch

    config = train_config("hardware=gpu")
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match=r"^hardware.accelerator=gpu: .* try hardware=cpu"):
            devices.device(config.hardware)
    with pytest.raises(UserError, match=r"^hardware.devices=2: .*hardware.strategy"):
        devices.device(train_config("hardware=cpu", "hardware.devices=2").hardware)
