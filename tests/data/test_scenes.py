"""Rendered scenes: what a user of images, depth, masks and labels relies on."""

import numpy as np
import pytest

from ijepa.data.scenes import (
    COLOURS,
    FAR,
    SHAPES,
    TASKS,
    Settings,
    class_names,
    distance_edges,
    draw_scenes,
    labels,
    layout,
    render,
)
from ijepa.data.scenes.geometry import camera_of
from ijepa.data.scenes.scene import CUBE, RADII, SPHERE, TAN_HALF_FOV, axes, inner
from ijepa.util.errors import UserError

SETTINGS = Settings()
ARRAYS = ("count", "shape", "colour", "material", "size", "position", "rotation", "distance", "camera", "light")


@pytest.fixture(scope="module")
def scenes():
    return draw_scenes(SETTINGS, 7, np.arange(1500))


@pytest.fixture(scope="module")
def rendered():
    return [render(SETTINGS, 7, index) for index in range(200)]


@pytest.fixture(scope="module")
def large():
    return [render(Settings(image_size=(96, 96)), 11, index) for index in range(12)]


def rays(image):
    """Directions [H, W, 3] through the pixels' centres, of length 1 along the viewing axis, from the definition."""
    height, width = image.settings.image_size
    right, up, forward = axes(image.scene.camera[0])
    focal = min(width / (2 * TAN_HALF_FOV[0]), height / (2 * TAN_HALF_FOV[1]))
    x = (np.arange(width) + 0.5 - width / 2) / focal
    y = (np.arange(height) + 0.5 - height / 2) / focal
    return forward + x[None, :, None] * right - y[:, None, None] * up


def test_a_scene_depends_on_its_seed_and_index_alone(scenes):
    some = np.array([900, 3, 1499])
    again = draw_scenes(SETTINGS, 7, some)
    alone = draw_scenes(SETTINGS, 7, some[:1])
    for name in ARRAYS:
        assert np.array_equal(getattr(again, name), getattr(scenes, name)[some])
        assert np.array_equal(getattr(alone, name)[0], getattr(scenes, name)[900])
    assert not np.array_equal(draw_scenes(SETTINGS, 8, some).position, again.position)
    assert len(np.unique(scenes.camera[:, 0])) == 1500


def test_an_image_is_the_same_again(rendered):
    for index in (5, 0):
        again = render(SETTINGS, 7, index)
        for name in ("image", "depth", "instances", "boxes"):
            assert np.array_equal(getattr(again, name), getattr(rendered[index], name))
        assert again.labels == rendered[index].labels
    assert (rendered[0].image.dtype, rendered[0].image.shape) == (np.uint8, (64, 64, 3))
    assert (rendered[0].depth.dtype, rendered[0].instances.dtype) == (np.float32, np.uint8)


def test_objects_keep_their_distance_stay_in_the_frame_and_are_seen(scenes):
    kept(scenes)


@pytest.mark.parametrize("count", [1, 3, 10])
def test_so_do_scenes_that_no_draw_could_place(count, monkeypatch):
    monkeypatch.setattr(layout, "MIN_VISIBLE", 2.0)
    monkeypatch.setattr(layout, "MAX_TRIES", 3)
    spare = draw_scenes(Settings(min_objects=count, max_objects=10), 0, np.arange(200))
    monkeypatch.undo()
    assert (spare.size == 0).all()
    kept(spare)


def kept(scenes):
    right, up, forward = (axis[:, None] for axis in axes(scenes.camera))
    away = np.sqrt(((scenes.position[:, :, None] - scenes.position[:, None]) ** 2).sum(-1))
    free = away - scenes.footprint[:, :, None] - scenes.footprint[:, None]
    pairs = scenes.present[:, :, None] & scenes.present[:, None] & ~np.eye(away.shape[1], dtype=bool)
    assert free[pairs].min() >= layout.GAP - 1e-9
    assert layout.visible_fraction(scenes).min() >= layout.MIN_VISIBLE
    assert (scenes.distance[:, 1:] >= scenes.distance[:, :-1]).all()
    # Every corner of every cube, and points all over the spheres and cylinders, in the angle of view.
    turns = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    for level in (-1.0, -0.6, 0.0, 0.6, 1.0):
        for turn in turns:
            wide = np.where(scenes.shape == SPHERE, np.sqrt(1 - level**2), 1.0) * scenes.half_width
            side = np.stack([np.cos(turn) * wide, np.sin(turn) * wide, level * scenes.half_height], -1)
            inside_view(scenes, scenes.centre + side, right, up, forward)
    for x, y in ((-1, -1), (-1, 1), (1, -1), (1, 1)):
        cosine, sine = scenes.rotation[..., 0], scenes.rotation[..., 1]
        corner = np.stack([x * cosine - y * sine, x * sine + y * cosine], -1) * scenes.half_width[..., None]
        for level in (-1, 1):
            solid = np.concatenate([corner, level * scenes.half_height[..., None]], -1)
            solid[scenes.shape != CUBE] = 0
            inside_view(scenes, scenes.centre + solid, right, up, forward)


def inside_view(scenes, points, right, up, forward):
    ray = points - scenes.camera[:, None]
    depth = inner(ray, forward)
    for axis, tangent in zip((right, up), TAN_HALF_FOV, strict=True):
        assert (np.abs(inner(ray, axis)) <= tangent * depth + 1e-9)[scenes.present].all()


def test_every_kind_of_object_and_every_number_of_them_is_as_frequent(scenes):
    def chi_squared(values, classes):
        counts = np.bincount(values, minlength=classes)
        return ((counts - len(values) / classes) ** 2 / (len(values) / classes)).sum()

    assert (scenes.count.min(), scenes.count.max()) == (3, 10)
    assert chi_squared(scenes.count - 3, 8) < 24.3  # 7 degrees of freedom, p = 0.001
    assert chi_squared(scenes.colour[scenes.present], 8) < 24.3
    assert chi_squared(scenes.material[scenes.present], 2) < 10.8
    shares = np.bincount(scenes.shape[scenes.present]) / scenes.present.sum()
    assert np.abs(shares - 1 / 3).max() < 0.04  # scenes in which nothing hides are drawn: not quite uniform
    assert abs(scenes.size[scenes.present].mean() - 0.5) < 0.06


def test_every_object_has_pixels(rendered):
    pixels = [np.bincount(image.instances.ravel(), minlength=len(image.boxes) + 1)[1:] for image in rendered]
    assert np.concatenate(pixels).min() >= 5  # of 3,000 scenes, the smallest has 6


def test_boxes_and_depth_agree_with_the_instances(rendered):
    for image in rendered[:60]:
        for number, (x0, y0, x1, y1) in enumerate(image.boxes, start=1):
            rows, columns = np.nonzero(image.instances == number)
            assert (x0, y0, x1, y1) == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            depth = image.depth[rows, columns]
            reach = image.scene.half_width[0, number - 1] + image.scene.half_height[0, number - 1]
            assert np.abs(depth - image.scene.distance[0, number - 1]).max() < reach
        assert set(np.unique(image.instances)) <= set(range(len(image.boxes) + 1))


def test_depth_of_the_ground_and_of_spheres(large):
    seen = 0
    for image in large:
        directions = rays(image)
        ground = -image.scene.camera[0, 2] / directions[..., 2]
        bare = image.instances == 0
        assert np.abs(image.depth - ground)[bare].max() < 2e-5
        assert (image.depth[~bare] < ground[~bare]).all()
        points = image.scene.camera[0] + image.depth[..., None] * directions
        for k in np.flatnonzero(image.scene.shape[0, : image.scene.count[0]] == SPHERE):
            there = image.instances == k + 1
            radius = RADII[image.scene.size[0, k]]
            away = points - image.scene.centre[0, k]
            assert np.abs(np.sqrt(inner(away, away))[there] - radius).max() < 1e-3
            foot = image.scene.centre[0, k] - image.scene.camera[0]
            across = np.cross(directions, foot)
            apart = np.sqrt(inner(across, across) / inner(directions, directions))
            assert (apart[there] < radius + 1e-4).all()
            assert not (bare & (apart < radius - 1e-4)).any()
            seen += there.sum()
    assert seen > 1000


def test_points_on_cubes_and_cylinders_lie_on_their_faces(large):
    for image in large:
        points = image.scene.camera[0] + image.depth[..., None] * rays(image)
        for k in range(image.scene.count[0]):
            if image.scene.shape[0, k] == SPHERE:
                continue
            x, y, z = (points[image.instances == k + 1] - image.scene.centre[0, k]).T
            cosine, sine = image.scene.rotation[0, k]
            local = np.abs([cosine * x + sine * y, cosine * y - sine * x])
            level = local.max(0) if image.scene.shape[0, k] == CUBE else np.sqrt(x * x + y * y)
            level, upright = level / image.scene.half_width[0, k], np.abs(z) / image.scene.half_height[0, k]
            assert np.abs(np.maximum(level, upright) - 1).max() < 1e-3


def test_labels_are_those_of_the_nearest_object(rendered):
    indices = np.arange(200)
    found = labels(SETTINGS, 7, indices)
    assert tuple(found) == TASKS
    edges = distance_edges(SETTINGS)
    for index in indices:
        scene, image = rendered[index].scene, rendered[index]
        forward = axes(scene.camera[0])[2]
        distances = [(scene.centre[0, k] - scene.camera[0]) @ forward for k in range(scene.count[0])]
        nearest = int(np.argmin(distances))
        expected = {
            "count": len(image.boxes) - 3,
            "distance": sum(bool(distances[nearest] > edge) for edge in edges),
            "shape": scene.shape[0, nearest],
            "colour": scene.colour[0, nearest],
        }
        assert image.labels == expected == {task: found[task][index] for task in TASKS}
    assert [len(class_names(SETTINGS, task)) for task in TASKS] == [8, 6, len(SHAPES), len(COLOURS)]


def test_bins_of_distance_are_equally_frequent_on_any_seed(scenes):
    counts = np.bincount(labels(SETTINGS, 7, np.arange(1500))["distance"], minlength=6)
    # 5 degrees of freedom, p = 0.001; the edges are quantiles of 6000 scenes, which adds a quarter to the variance
    assert ((counts - 250) ** 2 / 250).sum() < 20.5 * 1.25
    assert np.array_equal(distance_edges(SETTINGS), distance_edges(Settings(image_size=(32, 48))))
    assert not np.array_equal(distance_edges(SETTINGS), distance_edges(Settings(max_objects=5)))


@pytest.mark.parametrize("size", [(48, 80), (80, 40), (33, 57)])
def test_any_proportions_show_the_whole_scene(size):
    for index in range(10):
        image = render(Settings(image_size=size), 7, index)
        assert image.image.shape == (*size, 3)
        assert image.depth.shape == image.instances.shape == size
        assert (image.boxes[:, 2:] > image.boxes[:, :2]).all()
        assert np.array_equal(image.scene.position, render(SETTINGS, 7, index).scene.position)
    view = camera_of(image.scene, 0, size)
    assert view.width / (2 * view.focal) >= TAN_HALF_FOV[0] - 1e-6
    assert view.height / (2 * view.focal) >= TAN_HALF_FOV[1] - 1e-6


def test_beyond_the_ground_depth_is_far():
    image = render(Settings(image_size=(160, 24)), 0, 0)
    assert image.depth.max() == FAR
    assert image.depth[-1].max() < FAR
    assert image.instances[image.depth == FAR].max() == 0
    sky = image.image[image.depth == FAR].astype(int)
    assert (sky.max(0) - sky.min(0)).max() <= 1


def test_small_pictures_are_the_average_of_large_ones():
    def linear(image):
        level = image.astype(np.float64) / 255
        return np.where(level <= 0.04045, level / 12.92, ((level + 0.055) / 1.055) ** 2.4)

    for index in range(6):
        small = linear(render(Settings(image_size=(32, 32)), 7, index).image)
        large = linear(render(Settings(image_size=(128, 128)), 7, index).image)
        error = np.abs(small - large.reshape(32, 4, 32, 4, 3).mean((1, 3)))
        assert error.mean() < 0.006
        assert np.quantile(error, 0.99) < 0.06
        assert error.max() < 0.32


def test_what_cannot_be_is_refused():
    for options in (
        {"max_objects": 11},
        {"min_objects": 0},
        {"min_objects": 5, "max_objects": 4},
        {"image_size": (4, 64)},
    ):
        with pytest.raises(UserError):
            Settings(**options)
