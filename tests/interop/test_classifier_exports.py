"""Classifiers in ONNX, torch.export, timm and transformers, with those libraries as judges."""

import json

import numpy as np
import onnxruntime
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file
from weight_files import CLOSE, convert, spec_of

import ijepa
from ijepa.interop import classifier as model
from ijepa.interop import classifier_files as files
from ijepa.interop import heads_file
from ijepa.interop.command import main
from ijepa.interop.timm import constructor_arguments
from ijepa.models.attentive import AttentiveProbe
from ijepa.models.pretrained import untrained_encoder

NAMES = ["cat", "dog", "owl"]


def made(folder, name="wide", sets=("animal",), layers=1, attentive=False, size=None):
    """A classifier whose head is far from zero, and its file."""
    torch.manual_seed(0)
    spec = spec_of(name)
    heads = {}
    for label_set in sets:
        heads[label_set] = AttentiveProbe(48, 3, 3) if attentive else torch.nn.Linear(48 * layers, 3)
    labels = {label_set: model.LabelSet(NAMES, 1.7) for label_set in sets}
    validation = {
        label_set: {"images": 80, "accuracy": 0.625, "ece": 0.2, "ece_calibrated": 0.05} for label_set in sets
    }
    facts = {"task": "attentive" if attentive else "linear", "validation": validation}
    description = model.Description(labels, size or spec.image_size, layers=layers, facts=facts)
    classifier = model.ImageClassifier(untrained_encoder(spec, 0), heads, description)
    files.write_classifier(folder / files.FILE, classifier)
    return classifier, folder / files.FILE


def probabilities(classifier, images):
    with torch.no_grad():
        return [logits.softmax(dim=1) for logits in classifier(images).values()]


def normalised(spec, images):
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (spec.mean, spec.std))
    return (images - mean) / std


@pytest.mark.integration
@pytest.mark.parametrize(
    "kind", [{}, {"attentive": True}, {"sets": ("animal", "odd.name"), "layers": 2, "size": (16, 32)}]
)
def test_programs(tmp_path, kind):
    classifier, file = made(tmp_path, **kind)
    convert(file, tmp_path / "c.onnx", "--to", "onnx")
    convert(file, tmp_path / "c.pt2", "--to", "torch-export")
    session = onnxruntime.InferenceSession(tmp_path / "c.onnx")
    assert json.loads(session.get_modelmeta().custom_metadata_map["classes"]) == classifier.classes
    several = len(classifier.classes) > 1
    names = ["animal_probabilities", "odd.name_probabilities"] if several else ["probabilities"]
    assert [output.name for output in session.get_outputs()] == names
    program = torch.export.load(tmp_path / "c.pt2").module()
    for count in (1, 5):
        images = torch.rand(count, 3, *classifier.description.size)
        expected = probabilities(classifier, images)
        for found, values in zip(session.run(None, {"images": images.numpy()}), expected, strict=True):
            torch.testing.assert_close(torch.from_numpy(found), values, **CLOSE)
        found = program(images)
        for one, values in zip(found if several else [found], expected, strict=True):
            torch.testing.assert_close(one, values, **CLOSE)
    card = (tmp_path / "README.md").read_text()
    assert "pipeline_tag: image-classification" in card
    assert "3 classes: cat, dog, owl" in card
    assert "62.5 % of 80 validation images; calibration error 5.0 %" in card


@pytest.mark.parametrize("name", ["wide", "grey"])
def test_timm(tmp_path, name):
    classifier, file = made(tmp_path, name)
    convert(file, tmp_path / "vit.safetensors", "--to", "timm")
    spec = classifier.encoder.spec
    judge = timm.models.VisionTransformer(**{**constructor_arguments(spec), "num_classes": 3}).eval()
    judge.load_state_dict(load_file(tmp_path / "vit.safetensors"))
    images = torch.rand(4, spec.channels, *spec.image_size)
    with torch.no_grad():
        found = judge(normalised(spec, images)).softmax(dim=1)
    torch.testing.assert_close(found, probabilities(classifier, images)[0], **CLOSE)
    encoder = ijepa.load_encoder(tmp_path / "vit.safetensors")  # still an encoder
    torch.testing.assert_close(encoder(images), classifier.encoder(images), **CLOSE)


@pytest.mark.integration
@pytest.mark.parametrize("name", ["wide", "grey"])
def test_transformers(tmp_path, name, capsys):
    from transformers import AutoImageProcessor, IJepaForImageClassification

    classifier, file = made(tmp_path, name)
    convert(file, tmp_path / "hf", "--to", "transformers")
    assert "image processor stretches images that are not square; here they are cropped" in capsys.readouterr().out
    judge = IJepaForImageClassification.from_pretrained(tmp_path / "hf").eval()
    assert list(judge.config.id2label.values()) == NAMES
    spec = classifier.encoder.spec
    mode = {1: "L", 3: "RGB"}[spec.channels]
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*spec.image_size, 3), dtype=np.uint8)).convert(
        mode
    )
    pixels = AutoImageProcessor.from_pretrained(tmp_path / "hf")(picture, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        found = judge(pixels.view(1, spec.channels, *spec.image_size)).logits.softmax(dim=1)
    images = classifier.transform(picture)[None]
    torch.testing.assert_close(found, probabilities(classifier, images)[0], atol=1e-4, rtol=0)
    encoder = ijepa.load_encoder(tmp_path / "hf")  # still an encoder
    torch.testing.assert_close(encoder(images), classifier.encoder(images), **CLOSE)


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ({"attentive": True}, "cannot hold an attentive probe; try --to onnx"),
        ({"layers": 2}, "pools the last block, and the classifier 2; try --to onnx"),
        ({"sets": ("animal", "odd.name")}, "holds one set of classes, not animal, odd.name; try --to onnx"),
        ({"size": (32, 40)}, "takes images of the encoder's size, 24x40, and the classifier those of 32x40"),
    ],
)
@pytest.mark.parametrize("to", ["timm", "transformers"])
def test_what_a_format_cannot_hold(tmp_path, kind, says, to, capsys):
    _, file = made(tmp_path, **kind)
    assert (
        main(["convert", str(file), str(tmp_path / ("hf" if to == "transformers" else "v.safetensors")), "--to", to])
        == 2
    )
    assert f"--to={to}: {says}" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [files.FILE]


@pytest.mark.integration
@pytest.mark.parametrize("to", ["timm", "transformers", "torch-export", "onnx"])
def test_the_card_s_code_runs(tmp_path, to, monkeypatch):
    classifier, file = made(tmp_path, "grey" if to == "transformers" else "wide")
    name = {"timm": "vit.safetensors", "transformers": "hf", "torch-export": "c.pt2", "onnx": "c.onnx"}[to]
    convert(file, tmp_path / name, "--to", to)
    card = ((tmp_path / name if to == "transformers" else tmp_path) / "README.md").read_text()
    code = card.split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(tmp_path)
    images = torch.rand(2, classifier.encoder.spec.channels, *classifier.description.size)
    known = {"images": images.numpy() if to == "onnx" else images, "image": Image.new("L", (60, 50))}
    exec(code, known)  # a card that this software wrote
    assert torch.as_tensor(known["probabilities"]).shape[1:] == (3,)
    assert "cat" in str(known.get("classes", NAMES))


def test_the_encoder_of_a_classifier_alone(tmp_path, capsys):
    classifier, file = made(tmp_path)
    convert(file, tmp_path / "encoder.safetensors", "--to", "safetensors")
    assert heads_file.kind_of(tmp_path / "encoder.safetensors") is None
    encoder = ijepa.load_encoder(tmp_path / "encoder.safetensors")
    images = torch.rand(2, 3, 24, 40)
    assert torch.equal(encoder(images), classifier.encoder(images))
    assert main(["inspect", str(file)]) == 0
    assert "classifier   animal: 3 classes" in capsys.readouterr().out
