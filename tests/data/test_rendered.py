"""data=scenes: what the cache holds is what the renderer draws, whoever filled it."""

import json
import shutil

import numpy as np
import pytest
from helpers import train_config

from ijepa.data import rendered, scenes, sources
from ijepa.util.errors import UserError

CHOSEN = ("data=scenes", "data.image_size=[16,24]", "data.scenes.train=6", "data.scenes.val=3", "data.workers=0")


def source(cache, *overrides):
    found = sources.build(train_config(*CHOSEN, f"data.scenes.cache={cache}", *overrides).data, 0)
    found.prepare()
    return found


def test_images_and_labels_are_the_renderer_s(tmp_path):
    found = source(tmp_path)
    assert list(found.train.labels) == list(scenes.TASKS) == list(found.classes)
    settings = scenes.Settings((16, 24), 3, 10)
    for part, first, count in ((found.train, 0, 6), (found.val, 6, 3)):
        assert len(part) == count
        for index in range(count):
            drawn = scenes.render(settings, 0, first + index)
            assert np.array_equal(np.asarray(part.read(index)), drawn.image)
            assert np.array_equal(part.depth[index], drawn.depth.astype(np.float16))
            assert np.array_equal(part.instances[index], drawn.instances)
            assert {task: labels[index] for task, labels in part.labels.items()} == drawn.labels


def test_the_second_time_nothing_is_rendered(tmp_path, monkeypatch):
    first = source(tmp_path)
    monkeypatch.setattr(rendered, "_render", lambda *arguments: pytest.fail("rendered again"))
    second = source(tmp_path)
    assert second.train.read(5).tobytes() == first.train.read(5).tobytes()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_other_settings_have_their_own_place(tmp_path):
    one = source(tmp_path).train
    others = ("data.scenes.seed=1", "data.scenes.max_objects=4", "data.image_size=16", "data.scenes.train=7")
    for override in others:
        assert source(tmp_path, override).train.images.tobytes() != one.images.tobytes()
    assert source(tmp_path, "data.channels=1", "data.mean=[0.5]", "data.std=[0.25]").train.read(0).mode == "L"


def test_workers_render_the_same(tmp_path, monkeypatch):
    alone = source(tmp_path / "alone").train
    monkeypatch.setattr(rendered, "PARALLEL_MINIMUM", 4)
    several = source(tmp_path / "several", "data.workers=2").train
    assert several.images.tobytes() == alone.images.tobytes()
    assert several.labels == alone.labels


def test_a_render_that_was_cut_short_leaves_nothing_that_counts(tmp_path, monkeypatch):
    def cut(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(rendered, "write_json", cut)
    with pytest.raises(KeyboardInterrupt):
        source(tmp_path)
    assert not list(tmp_path.iterdir())
    monkeypatch.undo()
    assert len(source(tmp_path).train) == 6


def test_another_process_that_was_faster(tmp_path, monkeypatch):
    source(tmp_path)
    folders = sorted(tmp_path.iterdir())
    kept = {folder.name: shutil.copytree(folder, tmp_path.parent / f"kept-{folder.name}") for folder in folders}
    for folder in folders:
        shutil.rmtree(folder)
    write = rendered.write_json

    def overtaken(path, value):
        write(path, value)
        name = path.parent.name.split(".")[1]
        shutil.copytree(kept[name], tmp_path / name)

    monkeypatch.setattr(rendered, "write_json", overtaken)
    assert len(source(tmp_path).train) == 6
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)
    assert json.loads((folders[0] / "settings.json").read_text())["seed"] == 0


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.scenes.min_objects=5 data.scenes.max_objects=4", "data.scenes.min_objects=5"),
        ("data.image_size=[4,16] model.patch_size=4", "data.image_size=[4,16]"),
        ("data.channels=4 data.mean=[0,0,0,0] data.std=[1,1,1,1]", "data.channels=4"),
        ("data.root=/tmp", "data.root=/tmp"),
        ("data.scenes.cache=/proc/none", "data.scenes.cache=/proc/none"),
    ],
)
def test_what_cannot_be_rendered_is_named(tmp_path, override, message):
    with pytest.raises(UserError, match=message.replace("[", r"\[")):
        source(tmp_path, *override.split())
