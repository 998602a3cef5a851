"""Features on disk: the same as computed, and never those of something else."""

import os
import shutil

import pytest
import torch
from helpers import train_config

from ijepa.data import sources
from ijepa.evaluation import cache
from ijepa.evaluation.context import EvalContext, EvaluatedModel
from ijepa.evaluation.runtime import Runtime
from ijepa.models.pretrained import untrained_encoder
from ijepa.run import build

pytestmark = pytest.mark.integration  # reads and writes much


@pytest.fixture
def found(pictures, tmp_path):
    """From changes and a seed of the weights to the features of all images, and how many files the cache has then."""
    root = tmp_path / "images"
    shutil.copytree(pictures, root)

    def run(*changes, layers=1, seed=0, bf16=False):
        values = ("data.image_size=16", "model.patch_size=8", "model.width=24", "model.depth=2", "data.workers=0")
        config = train_config("data=folder", f"data.root={root}", *values, *changes)
        source = sources.build(config.data, 0)
        data = build.data(config.data, source, None, 0, config.hardware, 0)
        evaluated = EvaluatedModel("random init", untrained_encoder(build.spec(config.model, config.data), seed))
        ctx = EvalContext(data, Runtime(torch.device("cpu"), bf16), 0, cache=tmp_path / "cache", quiet=True)
        features = ctx.features(evaluated, layers, 4)
        return features, len(list((tmp_path / "cache" / "features").iterdir()))

    return run, root


def test_cached_features_are_the_computed_ones(found, monkeypatch):
    run, _ = found
    computed, files = run()
    assert files == 2  # training and validation
    monkeypatch.setattr(cache, "extract", None)
    kept, files = run()
    assert files == 2
    for one, other in zip(computed, kept, strict=True):
        torch.testing.assert_close(one, other, atol=0, rtol=0)


@pytest.mark.parametrize(
    ("changes", "settings"),
    [
        ((), {"seed": 1}),
        ((), {"layers": 2}),
        ((), {"bf16": True}),
        (("data.image_size=24",), {}),
        (("data.eval_crop=0.5",), {}),
        (("data.mean=[0,0,0]",), {}),
        (("data.max_pixels=1000000",), {}),
    ],
)
def test_what_features_depend_on_makes_other_ones(found, changes, settings):
    run, _ = found
    run()
    assert run(*changes, **settings)[1] == 4


def test_changed_images_are_read_again(found):
    run, root = found
    before, _ = run()
    file = next((root / "train").rglob("*.png"))
    other = next(path for path in (root / "train").rglob("*.png") if path != file)
    shutil.copyfile(other, file)
    os.utime(file, (1, 1))
    after, files = run()
    assert files == 3  # those of the validation images stay
    assert not torch.equal(before[0].values, after[0].values)


def test_a_damaged_file_is_made_anew(found, tmp_path, capsys):
    run, _ = found
    before, _ = run()
    for file in (tmp_path / "cache" / "features").iterdir():
        file.write_bytes(file.read_bytes()[:100])
    after, _ = run()
    torch.testing.assert_close(after[0].values, before[0].values, atol=0, rtol=0)
    assert capsys.readouterr().out.count("is corrupt and is computed again") == 2


def test_a_cache_that_cannot_be_written_loses_nothing(found, tmp_path, capsys):
    run, _ = found
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "features").write_text("a file in the way")
    with pytest.raises(NotADirectoryError):  # this test's own look into it
        run()
    assert capsys.readouterr().out.count("features are not cached") == 2


def test_unreadable_files_stay_left_out(found):
    run, root = found
    file = next((root / "train").rglob("*.png"))
    file.write_bytes(file.read_bytes()[:50])
    (computed, _), _ = run()
    (kept, _), _ = run()
    assert len(computed.values) == len(computed.labels["class"]) == len(computed.indices) == 23
    torch.testing.assert_close(kept, computed, atol=0, rtol=0)
