"""classifier.safetensors: written, loaded, used, and refused."""

import json

import numpy as np
import pytest
import torch
from helpers import picture
from safetensors.torch import load_file, save_file

import ijepa
from ijepa.interop import classifier as model
from ijepa.interop import classifier_files as files
from ijepa.interop import heads_file
from ijepa.models.pretrained import PretrainedEncoder, Spec, untrained_encoder
from ijepa.util.errors import UserError


def spec(**changes):
    values = {"image_size": (24, 32), "patch_size": 8, "channels": 3, "width": 24, "depth": 2, "heads": 3,
              "mlp_ratio": 4.0, "positions": "index", "position_grid": None, "mean": (0.5,) * 3,
              "std": (0.2,) * 3}  # fmt: skip
    return Spec(**{**values, **changes})


@pytest.fixture
def made():
    """A classifier of two label sets on the last two layers."""
    torch.manual_seed(0)
    sets = {"animal": model.LabelSet(["cat", "dog", "owl"], 2.0), "odd.name": model.LabelSet(["0", "1"])}
    heads = {name: torch.nn.Linear(48, len(labels.classes)) for name, labels in sets.items()}
    description = model.Description(sets, (16, 24), 0.9, True, layers=2, facts={"task": "logistic"})
    return model.ImageClassifier(untrained_encoder(spec(), 0), heads, description)


def test_what_is_written_is_loaded(made, tmp_path):
    files.write_classifier(tmp_path / files.FILE, made)
    loaded = ijepa.load_classifier(tmp_path)  # the folder will do
    assert loaded.description == made.description
    assert loaded.classes == {"animal": ["cat", "dog", "owl"], "odd.name": ["0", "1"]}
    assert not loaded.training
    assert loaded.transform.size == (16, 24)  # not the encoder's
    images = torch.rand(3, 3, 16, 24)
    expected = made(images)
    for name, logits in loaded(images).items():
        assert torch.equal(logits, expected[name])
    encoder = ijepa.load_encoder(tmp_path / files.FILE, positions="index")
    assert isinstance(encoder, PretrainedEncoder)
    assert torch.equal(encoder(images), made.encoder(images))


def test_predictions_of_files_pictures_and_tensors(made, tmp_path):
    pictures = [picture(seed, 40, 40) for seed in range(5)]
    for number, image in enumerate(pictures):
        image.save(tmp_path / f"{number}.png")
    paths = [tmp_path / f"{number}.png" for number in range(5)]
    found = made.predict(paths, "animal", batch_size=2)
    assert found == made.predict(pictures, "animal", batch_size=2)
    logits = made(torch.stack([made.transform(image) for image in pictures]))["animal"]
    for prediction, row in zip(found, logits.softmax(dim=1), strict=True):
        assert list(prediction.probabilities) == ["cat", "dog", "owl"]
        assert list(prediction.probabilities.values()) == pytest.approx(row.tolist(), abs=1e-6)
        assert prediction.name == max(prediction.probabilities, key=prediction.probabilities.get)
        assert prediction.probability == max(prediction.probabilities.values())
    pooled = made.encoder(torch.stack([made.transform(image) for image in pictures]), last=2).mean(1)
    torch.testing.assert_close(logits, made.heads[0](pooled) / 2.0)
    assert made.predict([], "animal") == []
    (alone,) = made.predict(str(paths[0]), "animal")  # a single file
    assert alone.name == found[0].name
    assert alone.probability == pytest.approx(found[0].probability, abs=1e-6)  # batches of another size


def test_extreme_values_are_refused(made, tmp_path):
    """A finite one whose probabilities would be NaN; in a file of before the limit, too."""
    files.write_classifier(tmp_path / files.FILE, made)
    loaded = ijepa.load_classifier(tmp_path)
    np.save(tmp_path / "a.npy", np.full((3, 20, 20), 1e30, np.float32))
    with pytest.raises(
        UserError, match=r"a.npy: cannot be read .*values from 1e\+30 to .* in training, more than 10000"
    ):
        loaded.predict([tmp_path / "a.npy"], "animal")
    with pytest.raises(UserError, match=r"an image cannot be used \(values from 1e\+30"):
        loaded.predict([torch.full((3, 20, 20), 1e30)], "animal")
    assert loaded.predict([torch.full((3, 20, 20), 255, dtype=torch.uint8)], "animal")
    assert heads_file.stored_deviations({}) == loaded.description.max_deviations == 1e4


def test_names_are_unique():
    assert model.names_of(["crane", "owl", "crane", "cat"], 3) == ["crane", "owl", "crane (2)"]
    assert model.names_of(None, 2) == ["0", "1"]


def test_mistakes_in_use(made, tmp_path):
    with pytest.raises(UserError, match=r"label_set=None: give one of animal, odd.name"):
        made.predict([])
    with pytest.raises(UserError, match=r"label_set=plant: give one of"):
        made.predict([], "plant")
    (tmp_path / "note.txt").write_text("no image")
    with pytest.raises(UserError, match=r"note.txt: cannot be read as an image"):
        made.predict([tmp_path / "note.txt"], "animal")


def test_several_files_in_a_folder(made, tmp_path):
    for name in ("a", "b"):
        files.write_classifier(tmp_path / f"classifier-{name}.safetensors", made)
    with pytest.raises(UserError, match=r"holds classifier-a.safetensors, classifier-b.safetensors; give one of these"):
        ijepa.load_classifier(tmp_path)
    (tmp_path / "classifier-b.safetensors").unlink()
    assert ijepa.load_classifier(tmp_path).classes == made.classes


def test_files_that_hold_no_classifier(made, tmp_path):
    with pytest.raises(UserError, match=r"nowhere: no such file; .* task=logistic leaves a classifier.safetensors"):
        ijepa.load_classifier(tmp_path / "nowhere")
    file = tmp_path / files.FILE
    ijepa.save_encoder(made.encoder, file)
    with pytest.raises(UserError, match=r"classifier.safetensors: holds no classifier; give a classifier.safetensors"):
        ijepa.load_classifier(file)
    file.write_bytes(b"\0" * 20)
    with pytest.raises(UserError, match=r"classifier.safetensors: cannot be read"):
        ijepa.load_classifier(file)
    files.write_classifier(file, made)
    written = file.read_bytes()
    state = {name: tensor.clone() for name, tensor in load_file(file).items()}  # not mapped: the file is written anew
    size = int.from_bytes(written[:8], "little")
    metadata = json.loads(written[8 : 8 + size])["__metadata__"]
    for change in ({"ijepa_classifier.0.weight": torch.zeros(3, 24)}, {"norm.weight": torch.zeros(5)}):
        save_file({**state, **change}, file, metadata)
        with pytest.raises(UserError, match="does not match"):
            ijepa.load_classifier(file)
    description = json.loads(metadata[heads_file.CLASSIFIER])
    sets = description["label_sets"]
    for change in ({"layers": -1}, {"crop": 0}, {"max_deviations": -1}, {"size": [16.5, 24]},
                   {"label_sets": {}}, {"facts": None},
                   {"label_sets": {**sets, "animal": {**sets["animal"], "temperature": -1}}},
                   {"label_sets": {**sets, "animal": {**sets["animal"], "temperature": "2"}}},
                   {"label_sets": {**sets, "animal": {**sets["animal"], "head": "deep"}}}):  # fmt: skip
        save_file(state, file, {**metadata, heads_file.CLASSIFIER: json.dumps({**description, **change})})
        with pytest.raises(UserError, match=r"classifier.safetensors: "):
            ijepa.load_classifier(file)
    for text in ("{}", "[]", "not JSON", "[" * 200_000):
        save_file(state, file, {**metadata, heads_file.CLASSIFIER: text})
        with pytest.raises(UserError, match=r"classifier.safetensors: "):
            ijepa.load_classifier(file)
