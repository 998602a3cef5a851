"""Images from the user's own function, found by name: data=mine from a folder of options."""

import sys

import pytest
from helpers import TINY, rows

OWN = """
import numpy as np
from PIL import Image
from ijepa.data.sets import Arrays, Source


def stripes(data, seed):
    noise = np.random.default_rng(seed)
    images = [Image.fromarray(noise.integers(0, 255, data.image_size, dtype=np.uint8)) for _ in range(24)]
    return Source(Arrays(images[:16], {}, data.channels), Arrays(images[16:], {}, data.channels), {})


def nothing(data, seed):
    return []
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A folder with a module and options of the user's own."""
    (tmp_path / "own_source.py").write_text(OWN)
    options = tmp_path / "own_conf" / "data"
    options.mkdir(parents=True)
    text = (
        "defaults: [folder]\n\nsource: own_source.stripes\nroot: null\n"
        "image_size: 16\nchannels: 1\nmean: [0.5]\nstd: [0.25]\n"
    )
    (options / "mine.yaml").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("own_source", None)


def test_a_run_on_images_of_one_s_own(own, invoke):
    code, _, err = invoke("train.py", "--config-dir", own / "own_conf", "data=mine", *TINY, "model.patch_size=4",
                          "masking=rasterized", "data.batch_size=8", f"run_dir={own / 'run'}")  # fmt: skip
    assert code == 0, err
    assert len(rows(own / "run")) == 3


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("own_source.nothing", "does not return an ijepa.data.sets.Source"),
        ("own_source.lines", "cannot be imported: AttributeError: "),
        ("own_source.OWN", "cannot be imported: "),
        ("sys.path", "is not a class"),
        ("mine", "no such source; try folder, list, scenes, "),
    ],
)
def test_mistakes_are_one_line(own, invoke, source, line):
    code, _, err = invoke("train.py", "--config-dir", own / "own_conf", "data=mine", *TINY, f"data.source={source}",
                          "model.patch_size=4", f"run_dir={own / 'run'}")  # fmt: skip
    assert code == 2
    assert err.startswith(f"error: data.source={source}: {line}")
    assert err.count("\n") == 1
