"""The package as a library, with a plain Trainer."""

import csv
import re

import lightning as L
import numpy as np
import pytest
import torch
import yaml
from helpers import EXACT, ROOT, TINY, assert_same, fit, picture, weights
from hydra.core.override_parser.overrides_parser import OverridesParser
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from PIL import Image
from torch.utils.data import Dataset, IterableDataset

import ijepa
from ijepa.api.composing import override
from ijepa.util.errors import UserError

pytestmark = pytest.mark.integration

SMALL = (
    "objective=l2", "model.patch_size=4", "data.image_size=16", "model.width=24", "model.depth=2", "predictor.width=12",
    "predictor.depth=1", "data.batch_size=8", "schedule.max_steps=4", "schedule.warmup_steps=1", "data.workers=0",
)  # fmt: skip


QUICK = {name: yaml.safe_load(value) for name, _, value in (item.partition("=") for item in TINY)}


class Photos(Dataset):
    """Items made by ``item`` of 12 pictures."""

    def __init__(self, item, count=12):
        self.item = item
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return self.item(picture(index, 20, 24))


class Stream(IterableDataset):
    def __iter__(self):
        yield picture(0, 20, 24)


def tensor(image):
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


ITEMS = {
    "picture": lambda image: image,
    "with a label": lambda image: (image, 3),
    "grey": lambda image: image.convert("L"),
    "uint8": tensor,
    "float": lambda image: (tensor(image).float() / 255, 3),
}


def trainer(tmp_path, **options):
    return L.Trainer(accelerator="cpu", default_root_dir=tmp_path, logger=False, enable_checkpointing=False,
                     enable_progress_bar=False, enable_model_summary=False, **options)  # fmt: skip


@pytest.mark.parametrize("item", ITEMS.values(), ids=ITEMS)
def test_batches_of_ones_own_dataset(item):
    config = ijepa.compose_config(*SMALL)
    batch = next(iter(ijepa.build_datamodule(config, Photos(item)).train_dataloader()))
    assert batch.images.shape == (8, 3, 16, 16)
    images = batch.images / 255 if batch.images.dtype == torch.uint8 else batch.images
    assert 0.2 < images.mean() < 0.8
    assert len(batch.masks.context) == 8


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (Photos(lambda image: {"image": image}), "Photos[0]: is a dict; try a PIL image or a tensor"),
        (Photos(lambda image: torch.zeros(20, 20)), "Photos[0]: is a tensor [20, 20]; try a PIL image or a tensor"),
        (Photos(lambda image: torch.zeros(5, 20, 20)), "Photos[0]: 5 channels cannot become data.channels=3"),
        (Photos(None, count=0), "Photos: is empty"),
        (Stream(), "Stream: needs __len__ and __getitem__; try a map-style Dataset"),
    ],
)
def test_a_dataset_of_another_kind_is_refused_in_one_line(dataset, message):
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        ijepa.build_datamodule(ijepa.compose_config(*SMALL), dataset)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimizer.lrr=1", "optimizer.lrr=1: no such key; did you mean optimizer.lr?"),
        ("model=vit_tin", "model=vit_tin: no such option; did you mean vit_tiny?"),
        ("data.image_size=18", "model.patch_size=4: does not divide"),
        ("data=folder", "data.root is not set"),
    ],
)
def test_a_mistake_in_the_configuration_is_one_line(override, message):
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        ijepa.compose_config(*SMALL, override)
    assert "\n" not in str(caught.value)


def test_a_plain_trainer_trains_what_the_command_trains(tmp_path):
    """To the bit; and it resumes to the bit from Lightning's own checkpoint."""
    overrides = ("data=digits", "hardware=cpu", "hardware.precision=32-true", *SMALL)
    config = ijepa.compose_config(*overrides)
    data = ijepa.build_datamodule(config)
    module = ijepa.build_module(config, data)
    plain = trainer(tmp_path, max_steps=data.max_steps)
    plain.fit(module, data)
    assert plain.global_step == 4
    assert torch.isfinite(plain.callback_metrics["train/loss"])
    commanded = fit(tmp_path / "run", *overrides, "callbacks.log_every_steps=1", "callbacks.evaluate_every_epochs=null",
                    "callbacks.health_every_steps=null", "callbacks.pictures=null")  # fmt: skip
    expected = weights(commanded)
    assert_same(expected, module.jepa.state_dict(), **EXACT)

    again = ijepa.build_module(config, data)
    stopped = trainer(tmp_path, max_steps=2)
    stopped.fit(again, data)
    stopped.save_checkpoint(tmp_path / "two.ckpt")
    resumed = ijepa.build_module(config, data)
    trainer(tmp_path, max_steps=4).fit(resumed, data, ckpt_path=tmp_path / "two.ckpt")
    assert_same(expected, resumed.jepa.state_dict(), **EXACT)


def test_a_trainer_s_own_callbacks_loggers_and_checkpoints(tmp_path):
    """In epochs of two steps: the batches are the same, and EarlyStopping ends the run between two of them."""
    config = ijepa.compose_config(*SMALL, "schedule.max_steps=8")
    data = ijepa.build_datamodule(config, Photos(ITEMS["picture"]))
    whole = ijepa.build_module(config, data)
    trainer(tmp_path, max_steps=8).fit(whole, data)

    def epochs(**options):
        return L.Trainer(accelerator="cpu", max_steps=8, limit_train_batches=3, reload_dataloaders_every_n_epochs=1,
                         enable_progress_bar=False, enable_model_summary=False, **options)  # fmt: skip

    saved = ModelCheckpoint(tmp_path / "saved", "{step}", monitor="train/loss", every_n_train_steps=1, save_top_k=-1)
    stopped = epochs(logger=CSVLogger(tmp_path, "logs"), log_every_n_steps=1,
                     callbacks=[saved, EarlyStopping("train/loss", mode="max", patience=1)])  # fmt: skip
    stopped.fit(ijepa.build_module(config, data), data)  # a loss that falls does not improve for a mode of max
    assert stopped.global_step == 6
    (table,) = (tmp_path / "logs").rglob("metrics.csv")
    with table.open() as file:
        losses = [float(row["train/loss"]) for row in csv.DictReader(file)]
    assert len(losses) == 6
    assert losses[-1] == pytest.approx(float(saved.best_model_score))

    for step in (3, 4):  # the end of an epoch, and the middle of one
        resumed = ijepa.build_module(config, data)
        epochs(logger=False, enable_checkpointing=False).fit(
            resumed, data, ckpt_path=tmp_path / "saved" / f"step={step}.ckpt"
        )
        assert_same(whole.state_dict(), resumed.state_dict(), **EXACT)

    best = saved.best_model_path
    expected = torch.load(best, weights_only=True)["state_dict"]
    loaded = ijepa.PretrainingModule.load_from_checkpoint(best)
    assert_same(expected, loaded.state_dict(), **EXACT)
    assert loaded.config == config
    images = torch.rand(2, 3, 16, 16)
    assert torch.equal(ijepa.load_encoder(best)(images), loaded.encoder()(images))
    trainer(tmp_path, max_steps=8).fit(loaded, data)  # it trains as one that was built


def test_an_epoch_does_not_divide_a_step(tmp_path):
    config = ijepa.compose_config(*SMALL, "hardware.accumulation=2")
    data = ijepa.build_datamodule(config, Photos(ITEMS["picture"]))
    fitting = trainer(tmp_path, max_steps=4, limit_train_batches=3, reload_dataloaders_every_n_epochs=1,
                      accumulate_grad_batches=2)  # fmt: skip
    with pytest.raises(UserError, match=r"should be a multiple of accumulate_grad_batches=2"):
        fitting.fit(ijepa.build_module(config, data), data)


def test_a_trial_of_the_trainer_is_one_epoch(tmp_path):
    config = ijepa.compose_config(*SMALL)
    data = ijepa.build_datamodule(config, Photos(ITEMS["picture"]))
    trial = trainer(tmp_path, fast_dev_run=2)
    trial.fit(ijepa.build_module(config, data), data)
    assert trial.global_step == 2


def test_a_checkpoint_does_not_choose_what_is_imported(tmp_path):
    config = ijepa.compose_config(*SMALL)
    data = ijepa.build_datamodule(config, Photos(ITEMS["picture"]))
    fitted = trainer(tmp_path, max_steps=4)
    fitted.fit(ijepa.build_module(config, data), data)
    fitted.save_checkpoint(tmp_path / "a.ckpt")
    contents = torch.load(tmp_path / "a.ckpt", weights_only=True)
    contents["ijepa_config"] += "callback: {mine: {_target_: somewhere.Else}}\n"
    contents["ijepa_config"] = contents["ijepa_config"].replace("callback: {}\n", "")
    torch.save(contents, tmp_path / "a.ckpt")
    with pytest.raises(
        UserError, match=r"callback.mine._target_=somewhere.Else: .*a.ckpt names this class.* add trust=somewhere"
    ):
        ijepa.PretrainingModule.load_from_checkpoint(tmp_path / "a.ckpt")
    assert ijepa.PretrainingModule.load_from_checkpoint(tmp_path / "a.ckpt", trust="somewhere") is not None


def test_checkpoints_that_hold_no_module(tmp_path, finished):
    run, _ = finished
    last = run / "checkpoints" / "last.ckpt"
    with pytest.raises(UserError, match=r"last.ckpt: holds no configuration; ijepa.load_encoder reads its encoder"):
        ijepa.PretrainingModule.load_from_checkpoint(last)
    (tmp_path / "a.ckpt").write_bytes(b"no checkpoint")
    with pytest.raises(UserError, match=r"a.ckpt: not a checkpoint, a truncated one, or one that"):
        ijepa.PretrainingModule.load_from_checkpoint(tmp_path / "a.ckpt")


def test_the_encoder_travels(tmp_path):
    config = ijepa.compose_config(*SMALL)
    module = ijepa.build_module(config, ijepa.build_datamodule(config, Photos(ITEMS["picture"])))
    encoder = module.encoder()
    images = encoder.transform(Image.new("RGB", (30, 20), "red"))[None]
    features = encoder(images)
    assert features.shape == (1, 16, 24)
    ijepa.save_encoder(encoder, tmp_path / "encoder.safetensors")
    torch.testing.assert_close(ijepa.load_encoder(tmp_path / "encoder.safetensors")(images), features, **EXACT)
    with pytest.raises(UserError, match=r"should end in \.safetensors"):
        ijepa.save_encoder(encoder, tmp_path / "encoder.pt")


def test_init_brings_its_sizes(tmp_path, checkpoint_file):
    config = ijepa.compose_config(f"init={checkpoint_file}", "model.heads=3", "schedule.max_steps=1",
                                  "schedule.warmup_steps=0", "data.workers=0")  # fmt: skip
    data = ijepa.build_datamodule(config, Photos(ITEMS["picture"]))
    found = ijepa.build_module(config, data).encoder()
    expected = ijepa.load_encoder(checkpoint_file, heads=3)
    assert_same(expected.encoder.state_dict(), found.encoder.state_dict(), **EXACT)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_epochs": 1, "accumulate_grad_batches": 2}, "hardware.accumulation is 1; give both the same"),
        ({"max_epochs": 3}, "the schedule has 4 steps; try Trainer(max_steps=data.max_steps)"),
        ({"max_steps": 4, "limit_train_batches": 2}, "first batches; add reload_dataloaders_every_n_epochs=1"),
        ({"max_steps": 4, "limit_train_batches": 1}, "first batches; add reload_dataloaders_every_n_epochs=1"),
        ({"max_steps": 4, "limit_train_batches": 2, "reload_dataloaders_every_n_epochs": 2}, "every_n_epochs=1"),
        ({"max_steps": 5}, "the schedule has 4 steps; try Trainer(max_steps=data.max_steps)"),
    ],
)
def test_a_trainer_that_disagrees_with_the_batches_is_refused(tmp_path, options, message):
    config = ijepa.compose_config(*SMALL)
    data = ijepa.build_datamodule(config, Photos(ITEMS["picture"]))
    with pytest.raises(UserError, match=re.escape(message)):
        trainer(tmp_path, **options).fit(ijepa.build_module(config, data), data)


def test_the_code_of_the_docs(tmp_path, monkeypatch, pictures):
    monkeypatch.chdir(tmp_path)
    functions, block = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "library.md").read_text(), flags=re.DOTALL)
    assert len([line for line in block.splitlines() if line.strip()]) < 20
    names = {}
    exec(compile(block, "docs/library.md", "exec"), names)
    assert names["features"].shape == (1, 144, 192)
    assert (tmp_path / "encoder.safetensors").is_file()

    quick = {
        **QUICK,
        "model.depth": 12,
        "predictor.depth": 6,
        "model.width": 48,
        "model.heads": 6,
        "data.batch_size": 8,
    }
    new = next(pictures.rglob("*.png"))
    for name, value in (("NEW.png", new), ("IMAGES", pictures), ('**{"schedule.epochs": 20}', "**quick")):
        functions = functions.replace(name, str(value))
    names = {"quick": quick}
    exec(compile(functions, "docs/library.md", "exec"), names)
    assert names["predictions"][0].name in ("cold", "warm")
    assert 0 <= names["accuracy"] <= 1


def test_every_public_name_is_there():
    assert set(ijepa.__all__) <= set(dir(ijepa))
    assert all(getattr(ijepa, name) for name in ijepa.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = ijepa.nothing


def test_pretrain_evaluate_and_predict(tmp_path, pictures):
    """As the commands do; the folder is that of a run."""
    run = ijepa.pretrain(pictures, run_dir=tmp_path / "a 'run'", experiment="small_images", seed=3,
                         **{**QUICK, "objective.target_depths": [0, 2], "data.image_size": 16, "model.patch_size": 4,
                            "data.batch_size": 8, "callbacks.evaluate_every_epochs": None})  # fmt: skip
    assert run.folder == tmp_path / "a 'run'"
    assert "seed: 3" in (run.folder / "config.yaml").read_text()
    images = torch.rand(2, 3, 16, 16)
    assert torch.equal(run.encoder(images), ijepa.load_encoder(run.folder)(images))
    assert run.results["target encoder"]["knn20"] >= 0
    evaluation = run.evaluate("logistic", baselines=False, **{"task.logistic.holdout": 0.4, "data.workers": 0})
    assert evaluation.folder == run.folder / "evaluation" / "logistic_task.logistic.holdout-0.4_data.workers-0"
    files = sorted((pictures / "val").rglob("*.png"))
    found = evaluation.classifier.predict(files)
    right = [prediction.name == file.parent.name for prediction, file in zip(found, files, strict=True)]
    assert evaluation.results["target encoder"]["logistic"] == pytest.approx(sum(right) / len(right))
    assert ijepa.Run(run.folder) == run
    assert set(run.evaluate(["knn"], output=tmp_path / "knn").results) == {
        "target encoder",
        "random init",
        "raw pixels",
    }


def test_mistakes_of_pretrain_are_one_line(tmp_path, pictures, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for data in ("a/b", "photos"):
        with pytest.raises(UserError, match=rf"data={data}: no such folder, and no option; try cifar10, "):
            ijepa.pretrain(data)
    with pytest.raises(UserError, match=r"hardware.devices=2: from Python, on one device; type .*train"):
        ijepa.pretrain(pictures, **{"hardware.devices": 2, "hardware.strategy": "ddp"})
    with pytest.raises(UserError, match=r"is no value of a key; give text, numbers, lists or None"):
        ijepa.pretrain(pictures, **{"optimizer.betas": {0.9, 0.95}})
    with pytest.raises(UserError, match=r"optimizer.lrr=0.1: no such key; did you mean optimizer.lr?"):
        ijepa.pretrain(pictures, **{"optimizer.lrr": 0.1})
    with pytest.raises(UserError, match=r"optimizer.lr=fast: "):
        ijepa.pretrain(pictures, **{"optimizer.lr": "fast"})
    with pytest.raises(UserError, match=r"nowhere: is not the folder of a run"):
        ijepa.Run("nowhere")
    assert not list(tmp_path.iterdir())


VALUES = ["a 'b'", "back\\slash", "ends in \\", "\\'", "null", "true", "1", "[1]", "", 1, 0.5, None, True,
          [1, "x", None], np.float64(1e-3), np.int64(3), np.array([1, 2])]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_values_travel_through_hydra_s_grammar(value):
    (parsed,) = OverridesParser.create().parse_overrides([override("notes", value)])
    expected = value.tolist() if isinstance(value, np.ndarray | np.generic) else value
    found = parsed.value()
    if isinstance(value, list):  # strings in it are still quoted objects
        found = [getattr(item, "text", item) for item in found]
    found = getattr(found, "text", found)
    assert found == expected
    assert type(found) is type(expected)
