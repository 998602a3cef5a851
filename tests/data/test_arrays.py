"""Values of every type, from .npy, .npz and TIFF files alike."""

import numpy as np
import pytest
import tifffile
import torch
from image_files import luminance, noise, reason, unit

from ijepa.data.decode import decode


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int16, np.int32])
def test_floats_and_signed_integers_are_as_they_are(tmp_path, dtype):
    values = noise(7, 8, dtype=dtype)
    tifffile.imwrite(tmp_path / "a.tif", values)
    np.save(tmp_path / "a.npy", values)
    for name in ("a.tif", "a.npy"):
        assert torch.equal(decode(str(tmp_path / name), 1), torch.from_numpy(values.astype(np.float32))[None])
        assert decode(str(tmp_path / name), 3).shape == (3, 7, 8)
        assert "try data.channels=1" in reason(tmp_path / name, 12)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32])
def test_unsigned_integers_end_at_one(tmp_path, dtype):
    values = noise(7, 8, 5, dtype=dtype)
    values[0, 0, 0] = np.iinfo(dtype).max
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack", planarconfig="contig")
    np.save(tmp_path / "a.npy", values)
    for name in ("a.tif", "a.npy"):
        read = decode(str(tmp_path / name), 5)
        torch.testing.assert_close(read, unit(values))
        assert read.max() == 1


def test_values_that_are_no_numbers(tmp_path):
    for number in (np.nan, np.inf, 1e300):
        values = noise(7, 8, dtype=np.float64)
        values[3, 3] = number
        tifffile.imwrite(tmp_path / "a.tif", values)
        np.save(tmp_path / "a.npy", values)
        for name in ("a.tif", "a.npy"):
            assert "NaN or infinite" in reason(tmp_path / name, 1)
    np.save(tmp_path / "a.npy", noise(4, 4) * 1j)
    assert "complex128" in reason(tmp_path / "a.npy", 1)
    np.save(tmp_path / "a.npy", np.array([[{}]]), allow_pickle=True)
    assert "Python objects" in reason(tmp_path / "a.npy", 1)


@pytest.mark.parametrize(
    ("shape", "channels", "order"),
    [
        ((6, 5, 12), 12, (2, 0, 1)),
        ((12, 6, 5), 12, (0, 1, 2)),
        ((12, 6, 12), 12, (2, 0, 1)),  # ambiguous: the last axis
        ((6, 5, 2), 2, (2, 0, 1)),
        ((3, 6, 5), 3, (0, 1, 2)),
        ((6, 5, 4), 4, (2, 0, 1)),
        ((1, 6, 5), 1, (0, 1, 2)),
        ((6, 5, 1), 1, (2, 0, 1)),
    ],
)
def test_axes_of_arrays(tmp_path, shape, channels, order):
    values = noise(*shape)
    np.save(tmp_path / "a.npy", values)
    np.save(tmp_path / "b.npy", np.asfortranarray(values).astype(">u2"))
    expected = unit(values.transpose(order).transpose(1, 2, 0))
    assert torch.equal(decode(str(tmp_path / "a.npy"), channels), expected)
    assert torch.equal(decode(str(tmp_path / "b.npy"), channels), expected)


def test_grey_and_colour_arrays(tmp_path):
    path = str(tmp_path / "a.npy")
    for shape in ((6, 5), (6, 5, 1), (1, 6, 5)):
        np.save(path, noise(*shape, dtype=np.uint8))
        assert torch.equal(decode(path, 3), unit(noise(6, 5, dtype=np.uint8)).expand(3, -1, -1))
    np.save(path, noise(6, 5, 3, dtype=np.uint8))
    torch.testing.assert_close(decode(path, 1), luminance(unit(noise(6, 5, 3, dtype=np.uint8))))


@pytest.mark.parametrize(
    ("shape", "channels", "says"),
    [
        ((6, 50, 12), 3, "try data.channels=6"),
        ((60, 50, 12), 3, "try data.channels=12"),
        ((60, 50, 4), 3, "try data.channels=4"),  # not alpha: nothing says so
        ((5,), 1, "[H, W, C]"),
        ((2, 3, 4, 5), 1, "[H, W, C]"),
        ((0, 5), 1, "empty"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path, shape, channels, says):
    np.save(tmp_path / "a.npy", np.zeros(shape, np.uint8))
    assert says in reason(tmp_path / "a.npy", channels)


def test_archives(tmp_path):
    path, values = tmp_path / "a.npz", noise(6, 5, 12)
    for names in (["one"], ["image", "mask"], ["arr_0", "arr_1"]):
        np.savez_compressed(path, **{name: values if i == 0 else values + 1 for i, name in enumerate(names)})
        assert torch.equal(decode(str(path), 12), unit(values))
    np.savez(path, left=values, right=values)
    assert "contains 2 arrays (left, right); name the image's array 'image'" in reason(path, 12)
    path.write_bytes(path.read_bytes()[:200])
    reason(path, 12)
