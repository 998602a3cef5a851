"""Pictures of whole runs and evaluations: what is written, of which images, and that nothing else changes."""

import shutil

import numpy as np
import pytest
import torch
from helpers import EXACT, TINY, assert_same, fit, picture, rows, weights
from PIL import Image

from ijepa import pictures
from ijepa.callbacks.pictures import FeaturePictures
from ijepa.data.heldout import evenly_spaced

pytestmark = pytest.mark.slow

ALWAYS = {"components.png", "similarity.png", "correspondence.png", "attention.png", "neighbours.png", "metrics.json"}


def names(folder):
    return {path.name for path in folder.iterdir()}


@pytest.fixture
def grey(tmp_path):
    """Images of one channel and of several shapes without labels, one of them broken."""
    root = tmp_path / "grey"
    root.mkdir()
    for number in range(12):
        picture(number, 30 + number, 52 - 2 * number, channels=1).save(root / f"{number:02}.png")
    (root / "broken.png").write_bytes((root / "00.png").read_bytes()[:60])
    return root


def test_pictures_of_a_run_on_a_user_s_own_images(finished, grey, invoke, tmp_path):
    folder, _ = finished
    arguments = ["task=pictures", "data=folder", f"data.root={grey}", "data.workers=0", f"output={tmp_path / 'out'}"]
    code, output, error = invoke("evaluate.py", f"checkpoint={folder}", *arguments)
    assert code == 0, error
    assert names(tmp_path / "out") == {*ALWAYS, "masks.png", "outlines.png", "curves.png"}
    for name in names(tmp_path / "out"):
        assert f"written  {tmp_path / 'out' / name}" in output
    assert output.count("unreadable, skipped") == 1
    with Image.open(tmp_path / "out" / "components.png") as image:
        assert image.width > image.height * 2 / 3  # beside 6 images of 16 x 24 pixels: encoder, block, random init
    few = [*arguments, "baselines=false", "task.pictures.images=1", "task.pictures.heads=1"]
    assert invoke("evaluate.py", f"checkpoint={folder}", *few)[0] == 0
    with Image.open(tmp_path / "out" / "components.png") as image:
        assert image.width < 3.2 * 200  # without random init, one row of three
        assert image.height < 1.2 * 200


@pytest.mark.parametrize("channels", [1, 4])
def test_pictures_of_random_weights_and_a_single_image(channels, invoke, tmp_path):
    root = tmp_path / "one"
    root.mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 30, 4), dtype=np.uint8)).save(root / "only.png")
    values = f"[{','.join(['0.5'] * channels)}]"
    code, output, error = invoke(
        "evaluate.py", "checkpoint=random", "task=pictures", "data=folder", f"data.root={root}", "data.workers=0",
        "data.image_size=[32,48]", "model.patch_size=4", f"data.channels={channels}", f"data.mean={values}",
        f"data.std={values}", f"output={tmp_path / 'out'}",
    )  # fmt: skip
    assert code == 0, error
    assert names(tmp_path / "out") == {*ALWAYS, "masks.png", "outlines.png"} - {"correspondence.png", "neighbours.png"}
    assert "masks    those of masking=multiblock" in output


def test_masks_that_the_grid_has_no_room_for_are_left_out(finished, pictures, invoke, tmp_path):
    folder, _ = finished
    code, output, error = invoke("evaluate.py", f"checkpoint={folder}", "task=[knn,pictures]", "data.image_size=4",
                                 f"output={tmp_path / 'out'}", "data.workers=0")  # fmt: skip
    assert code == 0, error
    assert "masks    skipped: masking.target_scale=" in output
    assert "knn20" in output
    assert "masks.png" not in names(tmp_path / "out")


def test_spread():
    assert evenly_spaced(5, 9) == [0, 1, 2, 3, 4]
    assert evenly_spaced(9, 3) == [0, 4, 8]
    assert evenly_spaced(1, 3) == [0]
    assert evenly_spaced(0, 3) == []


COUNT = "callbacks.pictures=2"


def test_the_same_images_through_the_run(tmp_path):
    """The run is none the wiser, and one that was stopped goes on with the same colours."""
    plain, whole = fit(tmp_path / "plain"), fit(tmp_path / "whole", COUNT)
    assert_same(weights(plain), weights(whole), **EXACT)
    steps = [0, 2, 4]
    written = tmp_path / "whole" / "pictures" / "features"
    assert names(written) == {f"step-{step:06}.png" for step in steps}
    fit(tmp_path / "cut", COUNT, stop=2)
    shutil.rmtree(tmp_path / "cut" / "pictures")
    again = fit(tmp_path / "cut", COUNT, last=tmp_path / "cut" / "checkpoints" / "last.ckpt")
    assert_same(weights(whole), weights(again), **EXACT)
    assert names(tmp_path / "cut" / "pictures" / "features") == {"step-000004.png"}
    one, other = (
        (tmp_path / run / "pictures" / "features" / "step-000004.png").read_bytes() for run in ("whole", "cut")
    )
    assert one == other
    losses = [[row["train/loss"] for row in rows(tmp_path / run)] for run in ("plain", "whole", "cut")]
    assert losses[0] == losses[1] == losses[2]
    (callback,) = (callback for callback in again.trainer.callbacks if isinstance(callback, FeaturePictures))
    titles = [axes.get_title() for axes in callback.progress().axes]
    assert titles[:4] == ["image", "step 0", "step 2", "step 4"]


def test_a_whole_run_leaves_pictures_of_its_course(invoke, tmp_path):
    folder = tmp_path / "run"
    assert invoke("train.py", "data=digits", *TINY, "task=knn", "callbacks.pictures=3", f"run_dir={folder}")[0] == 0
    finals = ("masks", "features", "similarity", "attention", "curves", "progress")
    assert names(folder / "pictures") == {"features", *(f"{name}.png" for name in finals)}
    assert names(folder / "pictures" / "features") == {f"step-{step:06}.png" for step in range(4)}


def test_the_state_of_the_pictures_is_plain(tmp_path):
    fit(tmp_path, COUNT)
    saved = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["callbacks"]["Pictures"]
    assert list(saved["drawn"]) == [0, 2, 4]
    assert saved["reference"].shape[2] == 3


def test_features_of_a_run_that_diverges_are_drawn():
    broken = torch.full((8, 4, 5), torch.nan)
    assert pictures.Colours()(broken).isfinite().all()
