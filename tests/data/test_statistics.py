"""Mean and standard deviation of each channel, and the data option that holds them."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from helpers import ROOT, composed, picture, train_config
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from PIL import Image

from ijepa.cli import entry, statistics
from ijepa.config import TrainConfig
from ijepa.config.checks import check, parse
from ijepa.data import moments, sources
from ijepa.util.errors import UserError


@pytest.fixture
def measure(monkeypatch, capsys, tmp_path):
    """The command in this process, writing to a folder of its own: exit code, output and errors."""
    monkeypatch.setattr(statistics, "OPTIONS", tmp_path / "conf" / "data")

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["statistics", *map(str, arguments)])
        code = 0
        try:
            entry.main("statistics", statistics.statistics)
        except SystemExit as error:
            code = error.code
        finally:
            GlobalHydra.instance().clear()
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def option(folder, name):
    """What ``data=NAME`` then means to train.py."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        search = f"hydra.searchpath=[file://{folder / 'conf'}]"
        return parse(TrainConfig, compose("train", [f"data={name}", search])).data


@pytest.fixture
def tiles(tmp_path):
    """12-channel arrays of different sizes; the true moments of those in train/."""
    arrays = []
    for i in range(6):
        values = np.random.default_rng(i).normal(280, 1e-2, (20 + i, 30, 12)).astype(np.float32)
        values *= np.arange(1, 13, dtype=np.float32)
        path = tmp_path / "My tiles" / ("train" if i < 5 else "val") / f"{i}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, values)
        arrays.append(values.reshape(-1, 12).astype(np.float64))
    train = np.concatenate(arrays[:5])
    return tmp_path / "My tiles", train.mean(0), train.std(0)


@pytest.mark.parametrize("workers", [0, 2])
def test_all_pixels_of_the_training_images(tiles, measure, tmp_path, workers):
    root, mean, std = tiles
    code, output, error = measure(
        f'data.root="{root}"', "data.channels=12", "data.image_size=[16,24]", f"data.workers={workers}"
    )
    assert (code, error) == (0, "")
    assert "5 of 5 training images, 12 channels" in output
    assert output.splitlines()[-1] == "next: python train.py data=My_tiles"
    text = (tmp_path / "conf" / "data" / "My_tiles.yaml").read_text()
    keys = [line.partition(":")[0] for line in text.splitlines() if line and line[0] not in "# "]
    assert keys == ["defaults", "image_size", "channels", "root", "mean", "std"]
    data = option(tmp_path, "My_tiles")
    assert (data.root, data.channels, data.image_size) == (str(root), 12, [16, 24])
    assert data.mean == pytest.approx(mean.tolist(), rel=1e-5)
    assert data.std == pytest.approx(std.tolist(), rel=1e-5)
    assert {path.name for path in (tmp_path / "conf" / "data").iterdir()} == {"My_tiles.yaml"}


def test_pictures_are_measured_in_0_to_1(tmp_path, measure):
    root = tmp_path / "pictures"
    root.mkdir()
    picture(0, 20, 30).save(root / "a.png")
    picture(1, 50, 40).save(root / "b.png")
    (root / "c.png").write_text("no picture")
    code, output, _ = measure(f"data.root={root}", "data.val_fraction=0", "name=mine")
    assert code == 0
    assert "1 cannot be read and are skipped" in output
    assert "c.png" in output
    pixels = np.concatenate([np.asarray(Image.open(root / name)).reshape(-1, 3) for name in ("a.png", "b.png")]) / 255
    data = option(tmp_path, "mine")
    assert data.mean == pytest.approx(pixels.mean(0).tolist(), rel=1e-5)
    assert data.std == pytest.approx(pixels.std(0).tolist(), rel=1e-5)
    assert data.val_fraction == 0
    config = parse(TrainConfig, composed("data=folder", f"data.root={root}"))
    check(config.model_copy(update={"data": data}))


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"a.png": None, "b.png": None, "c.npy": 200.0}, "1 of 3 images have values far outside 0..1, most do not: "),
        ({"a.png": None, "b.npy": 190.0, "c.npy": 200.0}, "1 of 3 images have values in 0..1, most do not: "),
        ({"a.npy": 5.0, "b.npy": 9.0, "c.npy": 4000.0}, "1 of 3 images have values beyond 100 times those of most"),
        ({"a.npy": 0.5, "b.png": None, "c.npy": 1.1}, None),
        ({"a.npy": 5.0, "b.npy": 90.0, "c.npy": 0.0}, None),
    ],
)
def test_images_in_other_units_are_named(tmp_path, measure, files, expected):
    root = tmp_path / "mixed"
    root.mkdir()
    for number, (name, scale) in enumerate(files.items()):
        if scale is None:
            picture(number, 20, 30).save(root / name)
        else:
            values = np.random.default_rng(number).uniform(0, scale, (20, 30, 3))
            np.save(root / name, values.astype(np.float32))
    code, output, _ = measure(f"data.root={root}", "data.val_fraction=0", "name=mixed")
    assert code == 0
    assert ("other units?" in output) == (expected is not None)
    if expected is not None:
        assert f"         other units? {expected}" in output
        odd = min(files) if "have values in 0..1" in expected else max(files)
        assert f"{root / odd} (" in output
        assert "if they are, mean and std suit neither kind" in output


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(
    ("pictures", "floats", "low", "high", "named"),
    [
        (10, 10, -90, 90, "10 of 20 images have values far outside 0..1, the others do not: {root}/f"),
        (4, 4, -50, 50, "4 of 8 images have values far outside 0..1, the others do not: {root}/f"),
        (4, 6, -50, 50, "4 of 10 images have values in 0..1, most do not: {root}/p"),
        (1, 9, 0, 100, "1 of 10 images have values in 0..1, most do not: {root}/p0.png ("),
        (5, 5, 0, 127, "5 of 10 images have values far outside 0..1, the others do not: {root}/f"),
        (5, 5, 0, 180, "5 of 10 images have values far outside 0..1, the others do not: {root}/f"),
        (6, 2, -1, 1, "2 of 8 images have values far outside 0..1, most do not: {root}/f"),
        (3, 3, 0, 1, None),
        (3, 3, -0.02, 1.2, None),
    ],
)
def test_pictures_among_floats(tmp_path, measure, bits, pictures, floats, low, high, named):
    """However many there are of both kinds: the fewer are named."""
    root = tmp_path / "mixed"
    root.mkdir()
    generator = np.random.default_rng(0)
    for number in range(pictures):
        values = generator.integers(0, 2**bits, (12, 16), dtype=f"uint{bits}")
        Image.fromarray(values).save(root / f"p{number}.png")
    for number in range(floats):
        np.save(root / f"f{number}.npy", generator.uniform(low, high, (12, 16)).astype(np.float32))
    keys = ["data.channels=1", "data.val_fraction=0", "data.workers=0"]
    code, output, error = measure(f"data.root={root}", *keys)
    assert code == 0, error
    assert ("other units?" in output) == (named is not None)
    if named is not None:
        assert f"other units? {named.format(root=root)}" in output


def test_floats_of_two_kinds():
    """Half and half: the median is that of one of them, no mean of both."""
    ranges = {f"{i}": moments.Range(*((0.0, 0.9) if i < 3 else (-90.0, 90.0))) for i in range(6)}
    (line, _) = moments.other_units(ranges)
    assert line.startswith("other units? 3 of 6 images have values far outside 0..1")
    dark = {"a": moments.Range(0.0, 1.0), "b": moments.Range(0.0, 60.0), "c": moments.Range(0.0, 90.0)}
    assert moments.other_units(dark) == []


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (torch.arange(40) / 65535, True),
        (torch.arange(40) / 4095, True),
        (torch.arange(40) / 255, True),
        (torch.tensor([0.0, 1.0, 1.0]), False),
        (torch.rand(500), False),
    ],
)
def test_decoded_pictures_are_recognised(values, expected):
    assert moments._is_scaled(values.reshape(1, 1, -1)) == expected


def test_a_sample(tiles, measure, tmp_path):
    root, *_ = tiles
    arguments = [f'data.root="{root}"', "data.channels=12", "images=2", "data.workers=0"]
    for name, seed in (("one", 0), ("again", 0), ("other", 1)):
        code, output, _ = measure(*arguments, f"seed={seed}", f"name={name}")
        assert code == 0
        assert "2 of 5 training images" in output
    one, again, other = (option(tmp_path, name).mean for name in ("one", "again", "other"))
    assert one == again != other


def test_what_exists_stays(tiles, measure, tmp_path):
    root, *_ = tiles
    arguments = [f'data.root="{root}"', "data.channels=12", "name=mine", "data.workers=0"]
    assert measure(*arguments)[0] == 0
    path = tmp_path / "conf" / "data" / "mine.yaml"
    before = path.read_text()
    code, output, error = measure(*arguments, "images=1")
    assert (code, output, error.count("\n")) == (2, "", 1)
    assert error.startswith(f"error: name=mine: {path} exists; add overwrite=true")
    assert path.read_text() == before
    assert measure(*arguments, "images=1", "overwrite=true")[0] == 0
    assert path.read_text() != before
    path.write_text("root: x\n")
    code, _, error = measure(*arguments, "overwrite=true")
    assert code == 2
    assert "was not written by this command" in error
    assert path.read_text() == "root: x\n"


def test_constant_channels_and_tiny_values(tmp_path, measure):
    root = tmp_path / "a"
    root.mkdir()
    values = np.stack([np.full((8, 8), 3.0), np.random.default_rng(0).normal(0, 1e-9, (8, 8))]).astype(np.float32)
    np.save(root / "a.npy", values)
    code, output, _ = measure(f"data.root={root}", "data.channels=2", "data.val_fraction=0", "data.workers=0")
    assert code == 0
    assert "channels [0] have the same value" in output
    data = option(tmp_path, "a")
    assert data.std == [1.0, pytest.approx(values[1].std(), rel=1e-4)]
    assert data.mean[0] == 3


def test_parts_of_an_image_are_merged():
    values = torch.rand(2, 2100, 600)
    found = moments.image_moments(values)
    assert found.pixels == 2100 * 600
    assert found.mean == pytest.approx(values.double().mean((1, 2)).tolist(), rel=1e-12)
    assert found.std == pytest.approx(values.double().flatten(1).std(1, correction=0).tolist(), rel=1e-12)


@pytest.mark.parametrize("name", ["null", "True", "nan"])
def test_a_folder_called_like_a_value(tmp_path, measure, name):
    """data=null would choose no option."""
    (tmp_path / name).mkdir()
    picture(0, 20, 30).save(tmp_path / name / "a.png")
    code, output, error = measure(f"data.root={tmp_path / name}", "data.val_fraction=0", "data.workers=0")
    assert code == 0, error
    assert output.endswith(f"data={name}_images\n")
    assert option(tmp_path, f"{name}_images").root == str(tmp_path / name)


def test_names_that_are_not_utf_8(tmp_path, measure):
    """Of a folder and a file, as Python decodes them; the option names the folder, so that training finds it."""
    root = tmp_path / os.fsdecode(b"\xf0\x9f\x90\xb1 im\xff")
    root.mkdir()
    picture(0, 20, 30).save(root / "a.png")
    (root / "a.png").rename(root / os.fsdecode(b"a\xfe.png"))
    np.save(root / "b.npy", np.random.default_rng(0).uniform(0, 200, (20, 30, 3)))
    code, output, error = measure(f"data.root={root}", "data.val_fraction=0", "data.workers=0")
    assert code == 0, error
    assert "other units?" in output
    data = option(tmp_path, "im")
    assert data.root == str(root)
    assert len(sources.build(data, 0).train) == 2


def test_a_source_without_a_folder(measure, tmp_path):
    assert measure("data=digits", "name=mine", "data.workers=0")[0] == 0
    data = option(tmp_path, "mine")
    assert (data.source, data.root, data.channels) == ("digits", None, 1)
    assert data.mean == pytest.approx([0.305], abs=1e-2)


@pytest.mark.parametrize(
    ("arguments", "starts"),
    [
        ([], "data.root is not set; add data.root="),
        (["data.root=/nowhere"], "data.root=/nowhere: no such folder"),
        (["data.root=/nowhere", "name=a/b"], "name=a/b: use letters, digits"),
        (["data.root=/nowhere", "name=true"], "name=true: data=true would be read as a value; choose another name"),
        (["data.root=/nowhere", "images=0"], "images=0: should be greater"),
        (["data.root=/nowhere", "nmae=a"], "nmae=a: no such key; did you mean name?"),
        (["data=nothing"], "data=nothing: no such option"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(measure, tmp_path, arguments, starts):
    code, output, error = measure(*arguments)
    assert (code, output, error.count("\n")) == (2, "", 1)
    assert error.startswith(f"error: {starts}")
    assert not (tmp_path / "conf").exists()


@pytest.mark.slow
def test_as_a_user_types_it():
    """Without writing anything: what the project ships is not replaced."""
    before = {path.name: path.read_text() for path in (ROOT / "conf" / "data").iterdir()}
    program = [sys.executable, "-m", "ijepa.data.statistics"]
    result = subprocess.run([*program, "data=digits", "overwrite=true"], capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 2
    assert "digits.yaml exists and was not written by this command; choose another name" in result.stderr
    shown = subprocess.run([*program, "--help"], capture_output=True, text=True, cwd=ROOT)
    assert shown.returncode == 0
    assert shown.stdout.startswith("python -m ijepa.data.statistics [key=value")
    assert "NAME in conf/data/NAME.yaml" in shown.stdout
    assert before == {path.name: path.read_text() for path in (ROOT / "conf" / "data").iterdir()}


def test_statistics_are_named_where_they_are_missing(tmp_path):
    from ijepa.config.checks import check

    with pytest.raises(UserError, match=r"^data.mean=.*needs 12 values.*python -m ijepa.data.statistics"):
        check(train_config("data=folder", f"data.root={tmp_path}", "data.channels=12"))
    with pytest.raises(UserError, match=r"^data.channels=0: "):
        train_config("data.channels=0")
    with pytest.raises(UserError, match=r"^data.channels=12: .*try 1, 3 or 4"):
        sources.build(train_config("data=digits", "data.channels=12").data, 0)
