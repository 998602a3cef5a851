"""Depth and segmentation maps: what comes out of files and scenes, and that they follow their images."""

import numpy as np
import pytest
import tifffile
import torch
from helpers import composed, train_config
from omegaconf import OmegaConf
from PIL import Image
from tifffile import imwrite

from ijepa.config import TrainConfig
from ijepa.config.checks import parse
from ijepa.data import maps, scenes, sources
from ijepa.data.files import Files
from ijepa.data.images import EvalTransform
from ijepa.data.sets import Arrays, HasDenseMaps, Subset, UnreadableError, map_kinds, read_map
from ijepa.util.errors import ConfigError


@pytest.fixture
def folder(tmp_path):
    for name in ("images", "maps"):
        (tmp_path / name / "a").mkdir(parents=True)
    return tmp_path


def reader(folder, kind, scale=1.0, max_pixels=None):
    return maps.MapFolder(kind, folder / "maps", folder / "images", scale, max_pixels)


DEPTH = np.array([[0, 1000, 2500], [65535, 7, 255]])


@pytest.mark.parametrize("suffix", [".png", ".tif", ".tiff", ".npy", ".PNG"])
def test_integers_of_a_depth_map_are_scaled(folder, suffix):
    path = folder / "maps" / "a" / f"x{suffix}"
    values = DEPTH.astype(np.uint16)
    if suffix == ".npy":
        np.save(path, values)
    else:
        Image.fromarray(values).save(path)
    found = reader(folder, "depth", 0.001)(str(folder / "images" / "a" / "x.jpg"))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, torch.from_numpy(DEPTH / 1000).float())


@pytest.mark.parametrize("kind", ["f2", "f4", "f8"])
def test_floats_of_a_depth_map_are_as_they_are(folder, kind):
    values = np.array([[0, 1.5, np.nan], [np.inf, -1, 3]], dtype=kind)
    np.save(folder / "maps" / "x.npy", values[None])
    imwrite(folder / "maps" / "y.tif", values)
    for name in ("x", "y"):
        found = reader(folder, "depth", 0.001)(str(folder / "images" / f"{name}.jpg"))
        np.testing.assert_array_equal(found, values.astype(np.float32))


def test_classes_are_the_stored_indices(folder):
    values = np.array([[0, 1, 255], [254, 7, 1]], dtype=np.uint8)
    expected = torch.tensor([[0, 1, -1], [254, 7, 1]])
    palette = Image.fromarray(values)
    palette.putpalette([7] * 768)
    palette.save(folder / "maps" / "palette.png")
    Image.fromarray(values).save(folder / "maps" / "grey.png")
    imwrite(folder / "maps" / "tiff.tif", values)
    np.save(folder / "maps" / "array.npy", values.astype(np.int32)[..., None])
    for name in ("palette", "grey", "tiff", "array"):
        found = reader(folder, "segmentation")(str(folder / "images" / f"{name}.webp"))
        assert found.dtype == torch.int64
        assert torch.equal(found, expected), name
    np.save(folder / "maps" / "negative.npy", -values.astype(np.int32) - 3)
    assert (reader(folder, "segmentation")(str(folder / "images" / "negative.jpg")) == -1).all()


def test_what_is_no_map_says_why(folder):
    Image.new("RGB", (4, 3)).save(folder / "maps" / "colours.png")
    np.save(folder / "maps" / "floats.npy", np.ones((3, 4)))
    np.save(folder / "maps" / "large.npy", np.ones((30, 40), np.uint8))
    (folder / "maps" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    for name, fault in {
        "colours": r"colours.png \(shape \[3, 4, 3\]: a map has one value per pixel",
        "floats": r"floats.npy \(contains float64 instead of class indices\)",
        "large": r"large.npy \(40x30 pixels, more than data.max_pixels=1000",
        "broken": r"broken.png \(",
        "missing": r"missing.jpg \(has no segmentation map .*missing.png or .tif .tiff .npy\)",
    }.items():
        with pytest.raises(UnreadableError, match=fault):
            reader(folder, "segmentation", max_pixels=1000)(str(folder / "images" / f"{name}.jpg"))


@pytest.mark.parametrize("size", [(40, 60), (20, 60), (60, 20), (40, 40), (10, 15), (80, 1200)])
@pytest.mark.parametrize("crop", [1.0, 0.8])
def test_a_map_is_seen_as_its_image_is(size, crop):
    """An image whose map is its own red channel, a slope that is the same in every scale."""
    rows, columns = np.meshgrid(*(np.linspace(0, 1, side) for side in size), indexing="ij")
    image = torch.from_numpy(np.stack([rows, columns, rows * columns])).float()
    transform = EvalTransform((24, 36), crop)
    for channel in image:
        expected = transform(channel[None])[0]
        found = transform.transform_map(channel)
        assert found.shape == expected.shape == (24, 36)
        step = 1.5 * max(1 / (side - 1) for side in size)  # as far as the nearest pixel can be away
        torch.testing.assert_close(found, expected, atol=max(step, 1 / 20), rtol=0)
        assert set(found.unique().tolist()) <= set(channel.unique().tolist())  # no value is a blend


def test_a_map_as_large_as_wanted_is_not_touched():
    classes = torch.randint(-1, 300, (24, 36))
    assert torch.equal(EvalTransform((24, 36)).transform_map(classes), classes)
    holes = torch.tensor([[float("nan"), float("inf"), 0.0, 2.0]]).expand(4, 4)
    torch.testing.assert_close(EvalTransform((4, 4)).transform_map(holes), holes, equal_nan=True)


def test_a_scene_s_maps():
    values = ["data.scenes.train=6", "data.scenes.val=4", "data.image_size=32", "data.workers=0"]
    source = sources.build(train_config("data=scenes", *values).data, 0)
    source.prepare()
    val = Subset(source.val, [3, 1])
    assert isinstance(val, HasDenseMaps)
    assert map_kinds(val) == ("depth", "segmentation", "colour", "instances")
    drawn = scenes.render(scenes.Settings((32, 32), 3, 10), 0, 6 + 3)
    depth, classes, colours, instances = (read_map(val, 0, kind) for kind in map_kinds(val))
    np.testing.assert_allclose(depth, np.where(drawn.depth < scenes.FAR, drawn.depth, 0), rtol=1e-3)  # kept in float16
    np.testing.assert_array_equal(instances, drawn.instances)
    for found, of_objects in ((classes, drawn.scene.shape), (colours, drawn.scene.colour)):
        expected = np.zeros((32, 32), np.int64)
        for number in range(int(drawn.scene.count[0])):
            expected[drawn.instances == number + 1] = of_objects[0, number] + 1
        np.testing.assert_array_equal(found, expected)
    assert {0} < set(classes.unique().tolist()) <= {0, 1, 2, 3}


def test_runs_from_before_maps_still_load():
    values = OmegaConf.to_container(composed(), resolve=True)
    for key in ("depth_root", "depth_scale", "segmentation_root"):
        del values["data"][key]
    assert parse(TrainConfig, values).data.depth_root is None


def test_only_some_images_have_maps():
    arrays = Arrays([], {}, 1)
    assert map_kinds(arrays) == map_kinds(Subset(arrays, [])) == map_kinds(Files([], {}, 3, None)) == ()


@pytest.mark.parametrize("key", ["depth_root", "segmentation_root"])
def test_wrong_folders_are_one_line(pictures, tmp_path, key):
    def fault(*values):
        with pytest.raises(ConfigError) as error:
            sources.build(train_config(*values).data, 0)
        assert "\n" not in str(error.value)
        return str(error.value)

    folder = ["data=folder", f"data.root={pictures}"]
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    assert fault(*folder, f"data.{key}=/nowhere").startswith(f"data.{key}=/nowhere: no such folder")
    assert "not a folder" in fault(*folder, f"data.{key}={tmp_path}/file")
    assert "is inside data.root=" in fault(*folder, f"data.{key}={pictures}/val")
    strange = fault(*folder, f"data.{key}={tmp_path}/empty")
    assert (
        f"no map for any of 24 images; the first image's map should be {tmp_path}/empty/train/cold/train-0.png"
        in strange
    )
    assert "omit it" in fault("data=digits", f"data.{key}={tmp_path}")


def test_fax_compressed_masks_are_read(tmp_path):
    mask = np.zeros((20, 24), bool)
    mask[3:9, 5:15] = True
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    Image.fromarray(mask).save(tmp_path / "masks" / "a.tif", compression="group4")
    reader = maps.MapFolder("segmentation", tmp_path / "masks", tmp_path / "images", 1.0, None)
    assert set(reader(str(tmp_path / "images" / "a.png")).unique().tolist()) == {0, 1}


@pytest.mark.parametrize("compression", [None, "zlib", "lzw"])
@pytest.mark.parametrize("kind", ["depth", "segmentation"])
def test_a_tiff_that_stores_far_more_than_its_pixels_is_not_read(tmp_path, kind, compression, monkeypatch):
    (tmp_path / "images").mkdir()
    path = tmp_path / "maps" / "a.tif"
    path.parent.mkdir()
    tifffile.imwrite(path, np.ones((32, 32), np.uint16), compression=compression)
    with tifffile.TiffFile(path) as opened:
        at = opened.pages[0].tags["StripByteCounts"].offset + 2  # of type, count and value
    with path.open("r+b") as file:
        file.seek(at)
        file.write((4).to_bytes(2, "little") + (1).to_bytes(4, "little") + (300_000_000).to_bytes(4, "little"))
        file.truncate(300_100_000)  # takes no space on the disk
    monkeypatch.setattr(tifffile.TiffPage, "asarray", lambda *args, **kwargs: pytest.fail("decoded"))
    with pytest.raises(UnreadableError, match="stores 300000000 bytes for 2048 bytes of pixels; it is damaged"):
        maps.MapFolder(kind, path.parent, tmp_path / "images", 1.0, None)(str(tmp_path / "images" / "a.png"))
