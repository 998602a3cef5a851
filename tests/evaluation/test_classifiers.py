"""The classifiers that tasks leave: what is loaded from the file predicts what was reported, with probabilities."""

import errno

import numpy as np
import pytest
import torch
from helpers import composed, train_config
from PIL import Image

import ijepa
from ijepa.data.sets import Arrays, Source
from ijepa.evaluation import calibration, tasks
from ijepa.evaluation.context import EvalContext, EvaluatedModel
from ijepa.evaluation.runtime import Runtime
from ijepa.interop.command import main
from ijepa.models.pretrained import untrained_encoder
from ijepa.run import build

QUICK = {
    "logistic": ["task.logistic.holdout=0.3"],
    "linear": ["task.linear.epochs=3", "task.linear.layers=[1,2]", "task.linear.holdout=0.3",
               "task.linear.batch_size=32", "task.linear.crop_scale=null"],
    "attentive": ["task.attentive.epochs=2", "task.attentive.holdout=0.3", "task.attentive.batch_size=32"],
    "lowshot": ["task.lowshot.shares=[0.5]", "task.lowshot.shots=[3]", "task.lowshot.draws=2"],
    "finetune": ["task.finetune.epochs=3", "task.finetune.holdout=0.3", "task.finetune.warmup_epochs=0",
                 "task.finetune.batch_size=32", "task.finetune.lr=5e-3", "task.finetune.randaugment=null"],
}  # fmt: skip


def greys(count, seed):
    """Noisy images, dark, grey or bright; and bright or not. A tenth have the wrong label."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count)
    pixels = [80 * label + rng.integers(0, 90, (16, 16)) for label in labels]
    images = [Image.fromarray(picture.astype(np.uint8)) for picture in pixels]
    labels = np.where(rng.random(count) < 0.1, rng.integers(0, 3, count), labels)
    return Arrays(images, {"class": labels.tolist(), "bright": (labels == 2).astype(int).tolist()}, 1)


@pytest.fixture
def evaluated(tmp_path):
    """A function that runs a task as evaluate.py does, and returns its results and validation images."""
    config = train_config("data=digits", "data.image_size=16", "model.width=24", "model.depth=2", "model.heads=3",
                          "data.workers=0")  # fmt: skip
    classes = {"class": ["dark", "grey", "bright"], "bright": ["no", "yes"]}
    data = build.data(config.data, Source(greys(240, 0), greys(120, 1), classes), None, 0, config.hardware, 0)
    encoder = untrained_encoder(build.spec(config.model, config.data), 0)

    def run(names, *overrides):
        chosen = train_config(f"task=[{','.join(names)}]", "data=digits", *overrides).task
        ctx = EvalContext(data, Runtime(torch.device("cpu")), 0, quiet=True, folder=tmp_path,
                          write_models=True, classifiers=tasks.with_classifiers(chosen))  # fmt: skip
        return tasks.evaluate(chosen, EvaluatedModel("target encoder", encoder), ctx), data.source.val

    return run


@pytest.mark.integration
@pytest.mark.parametrize("name", QUICK)
def test_a_loaded_classifier_predicts_what_was_reported(evaluated, tmp_path, name):
    found, val = evaluated([name], *QUICK[name])
    assert tmp_path / "classifier.safetensors" in found.files
    classifier = ijepa.load_classifier(tmp_path)
    assert classifier.classes == {"class": ["dark", "grey", "bright"], "bright": ["no", "yes"]}
    assert classifier.description.facts["task"] == name
    for label_set, names in classifier.classes.items():
        predictions = classifier.predict(val.images, label_set)
        labels = torch.tensor(val.labels[label_set])
        classes = torch.tensor([names.index(prediction.name) for prediction in predictions])
        details = found.details[name][label_set]
        metric = "lowshot_50pct" if name == "lowshot" else name
        reported = found.results[f"{label_set}/{metric}"].value
        if name == "lowshot":  # the classifier is the first draw's
            reported, details = details[metric]["draws"][0], details["calibration"]
        assert (classes == labels).float().mean().item() == pytest.approx(reported)
        temperature = classifier.description.label_sets[label_set].temperature
        assert temperature == details["temperature"] > 0
        values = torch.tensor([list(prediction.probabilities.values()) for prediction in predictions])
        assert calibration.calibration_error(values.log(), labels) == pytest.approx(details["ece_calibrated"], abs=1e-5)
        uncalibrated = (values.log() * temperature).softmax(dim=1)
        assert calibration.calibration_error(uncalibrated.log(), labels) == pytest.approx(details["ece"], abs=1e-4)


@pytest.mark.integration
def test_too_few_labels_for_a_temperature_are_said(evaluated, tmp_path, capsys):
    names = ["logistic", "finetune", "lowshot"]
    evaluated(names, "task.logistic.holdout=0.1", "task.finetune.epochs=1", "task.lowshot.shares=[]")
    assert {path.name for path in tmp_path.glob("classifier*")} == {f"classifier-{name}.safetensors" for name in names}
    said = capsys.readouterr().out
    assert "logistic class: fewer than 50 held-out training images, so probabilities are not calibrated" in said
    assert "finetune bright: task.finetune.holdout=0.05 holds out fewer than 50 images, so" in said
    assert "lowshot  class: fewer than 50 labels to calibrate by, so" in said
    classifier = ijepa.load_classifier(tmp_path / "classifier-finetune.safetensors")
    facts = classifier.description.facts
    assert (facts["task"], facts["images"]) == ("finetune", 240)  # none is held out in vain
    assert facts["validation"]["class"]["images"] == 120
    assert all(labels.temperature is None for labels in classifier.description.label_sets.values())


def test_fine_tuning_on_few_labels_holds_nothing_out():
    assert "holdout" not in composed("task=lowshot_finetune").task.lowshot_finetune
    assert composed("task=finetune_in1k").task.finetune.holdout == 0


@pytest.mark.integration
def test_a_linear_probe_of_the_last_block_is_one(evaluated, tmp_path):
    """Although heads of more blocks are candidates; so it can be exported to timm."""
    found, _ = evaluated(["linear"], *QUICK["linear"], "task.linear.layers=[1,2]", "task.linear.labels=[bright]")
    classifier = ijepa.load_classifier(tmp_path)
    assert classifier.description.layers == found.details["linear"]["bright"]["chosen"]["layers"]
    if classifier.description.layers == 1:
        out = tmp_path / "vit.safetensors"
        assert main(["convert", str(tmp_path / "classifier.safetensors"), str(out), "--to", "timm"]) == 0


def test_a_full_disk_does_not_end_an_evaluation(evaluated, tmp_path, monkeypatch, capsys):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("ijepa.evaluation.classifiers.write_classifier", full)
    found, _ = evaluated(["logistic"])
    assert found.results["class/logistic"].value > 0
    assert "the classifier is not written" in capsys.readouterr().out
    assert not list(tmp_path.glob("classifier*"))
