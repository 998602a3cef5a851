"""The map of images: isolation by hand, a page that works, odd names and few images."""

import base64
import io
import json
import re

import browser
import numpy as np
import pytest
import torch
from helpers import picture, train_config
from PIL import Image
from torch.nn import functional as F

from ijepa.data.heldout import evenly_spaced
from ijepa.data.sets import Arrays, Source
from ijepa.evaluation import atlas, tasks
from ijepa.evaluation.context import EvalContext, EvaluatedModel
from ijepa.evaluation.runtime import Runtime
from ijepa.models.pretrained import untrained_encoder
from ijepa.run import build


class Named(Arrays):
    """Images with names that a page must not take for markup."""

    def name(self, index):
        return f"<!--<script </script><b>{index}\udcff"


def evaluated(folder, train, val, *overrides):
    """The map of ``train`` and ``val`` images."""
    config = train_config("data=digits", "data.image_size=[16,24]", "model.width=24", "model.depth=2", "model.heads=3",
                          "data.workers=0", "task=map", *overrides)  # fmt: skip
    parts = [Named([picture(seed, 24, 20) for seed in seeds], {"class": [seed % 2 for seed in seeds]}, 1)
             for seeds in (range(train), range(100, 100 + val))]  # fmt: skip
    source = Source(*parts, {"class": ["<i>cat", "dog"]})
    data = build.data(config.data, source, None, 0, config.hardware, 0)
    model = EvaluatedModel("target encoder", untrained_encoder(build.spec(config.model, config.data), 0))
    return tasks.evaluate(
        config.task, model, EvalContext(data, Runtime(torch.device("cpu")), 0, quiet=True, folder=folder)
    )


def page(folder):
    text = (folder / "map.html").read_text()
    return json.loads(re.search(r'<script id="data" type="application/json">(.*?)</script>', text)[1])


def test_isolation_by_hand():
    features = torch.randn(40, 5, generator=torch.Generator().manual_seed(0))
    features[3] = 20 * torch.eye(5)[0]
    keys = F.normalize(features - features.mean(dim=0), dim=1)
    similarity = (keys @ keys.T).fill_diagonal_(-2)
    expected = (1 - similarity.topk(4, dim=1).values).mean(dim=1)
    torch.testing.assert_close(atlas.isolation(features, 4), expected, atol=1e-6, rtol=0)
    assert atlas.isolation(features[:2], 4).tolist() == [0, 0]


def test_isolation_among_some_images(monkeypatch):
    monkeypatch.setattr(atlas, "COMPARED", 10)
    features = torch.randn(40, 5, generator=torch.Generator().manual_seed(0))
    chosen = evenly_spaced(40, 10)
    mean = features[chosen].mean(dim=0)
    keys = F.normalize(features - mean, dim=1)
    similarity = keys @ keys[chosen].T
    similarity[chosen, torch.arange(10)] = -2
    expected = (1 - similarity.topk(4, dim=1).values).mean(dim=1)
    torch.testing.assert_close(atlas.isolation(features, 4), expected, atol=1e-6, rtol=0)


@pytest.mark.integration
@pytest.mark.parametrize(("train", "val"), [(60, 12), (3, 0), (1, 1)])
def test_the_page_and_the_table(tmp_path, train, val):
    found = evaluated(tmp_path, train, val, "task.map.images=40")
    assert [path.name for path in found.files] == ["map.html", "outliers.csv"]
    data = page(tmp_path)
    shown = len(data["names"])
    assert min(train + val, 40) <= shown <= 40 + atlas.SHOWN_OUTLIERS
    for name in ("parts", "x", "y", "distance"):
        assert len(data[name]) == shown
    assert all(0 <= value <= 1 for value in (*data["x"], *data["y"]))
    assert data["labels"]["class"]["names"] == ["<i>cat", "dog"]
    distances = [data["distance"][i] for i in data["odd"]]
    assert distances == sorted(distances, reverse=True)
    with Image.open(io.BytesIO(base64.b64decode(data["sheets"][0].partition(",")[2]))) as sheet:
        assert sheet.size == (atlas.COLUMNS * atlas.SIDE, -(-shown // atlas.COLUMNS) * atlas.SIDE)
        corner = np.asarray(sheet)[: atlas.SIDE, : atlas.SIDE]
        assert abs(int(corner[2, 24].mean()) - 127) < 8  # above a wide image
    lines = (tmp_path / "outliers.csv").read_bytes().splitlines()
    assert len(lines) == 1 + train + val
    assert b"</script><b>" in lines[1]


@pytest.mark.slow
@pytest.mark.skipif(browser.CHROMIUM is None, reason="needs Chromium")
def test_the_page_in_a_browser(tmp_path):
    evaluated(tmp_path, 60, 12)
    with browser.Browser(tmp_path / "profile") as page:
        page.size(1000, 700)
        page.open(tmp_path / "map.html")
        assert page.run("document.querySelectorAll('#odd .thumb').length") == atlas.SHOWN_OUTLIERS
        page.run("document.querySelector('#odd .thumb:nth-child(3)').click()")
        name = page.run("document.getElementById('name').firstChild.textContent")
        assert name == page.run("data.names[data.odd[2]]")
        assert "</script><b>" in name  # as text
        page.run("canvas.onwheel({preventDefault() {}, deltaY: -400, offsetX: 100, offsetY: 100})")
        assert page.run("view.scale") > 2
        assert page.run("getComputedStyle(document.getElementById('shown')).backgroundImage").startswith(
            'url("data:image'
        )
        assert not page.faults
        assert all(url.startswith(("file:", "data:")) for url in page.requests)
