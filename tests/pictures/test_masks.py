"""Pictures of contexts and targets."""

import numpy as np
import torch
from figures import shown, titles

from ijepa import pictures
from ijepa.masking import Masks
from ijepa.pictures.masks import borders

GREY = np.float32(pictures.HIDDEN)


def test_masks_show_their_patches_and_no_other():
    images = torch.rand(2, 3, 4, 6) / 2  # patches of 2: a grid of 2x3
    masks = Masks(
        torch.tensor([[0, 4], [2, 0]]),
        torch.tensor([[[1], [2]], [[3], [5]]]),
        torch.tensor([[True, True], [True, False]]),
    )
    figure = pictures.masks(images, masks, 2)
    assert titles(figure) == ["image", "outlined", "context", "target 1", "target 2"]
    visible = [[range(6), (0, 4), (1,), (2,)], [range(6), (2,), (3,), (5,)]]  # padding is not shown
    rows = [[row[0], *row[2:]] for row in shown(figure)]
    for row, patches, image in zip(rows, visible, images.permute(0, 2, 3, 1).numpy(), strict=True):
        for picture, wanted in zip(row, patches, strict=True):
            for patch in range(6):
                y, x = 2 * (patch // 3), 2 * (patch % 3)
                expected = image[y : y + 2, x : x + 2] if patch in wanted else GREY
                assert np.array_equal(picture[y : y + 2, x : x + 2], np.broadcast_to(expected, (2, 2, 3)))


def test_outlines_fade_what_is_not_context_and_frame_each_target():
    images = torch.rand(5, 1, 4, 6)
    chosen = Masks(torch.tensor([[0, 4]]).expand(5, 2), torch.tensor([[[1, 2], [2, 5]]]).expand(5, 2, 2))
    figure = pictures.outlines(images, chosen, 2)
    assert [axes.get_subplotspec().colspan.start for axes in figure.axes] == [0, 1, 2] * 2
    picture, image = np.asarray(shown(figure)[0][1]), np.repeat(images[1].permute(1, 2, 0).numpy(), 3, 2)
    assert np.array_equal(picture[2:, 2:4], image[2:, 2:4])  # patch 4
    assert np.allclose(picture[:2, 2:4], 0.3 * image[:2, 2:4] + 0.7, atol=1e-6)
    light = pictures.outlines(torch.ones(5, 1, 4, 6), chosen, 2)
    assert np.asarray(shown(light)[0][1])[0, 2].max() < 0.8  # white would not show on white
    context, first, second = (lines.get_paths() for lines in figure.axes[1].collections)
    assert [len(paths) for paths in (context, first, second)] == [2, 1, 1]
    for paths, corner, wide in ((first, (2, 0), (4, 2)), (second, (4, 0), (2, 4))):
        box = paths[0].get_extents()
        assert np.all((box.min > np.subtract(corner, 0.5)) & (box.min < np.array(corner)))  # a little inside
        assert np.all(box.max < np.add(corner, wide) - 0.5)
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["context, in full colour", "target 1", "target 2"]
    assert not figure.axes[5].collections  # an empty place at the end


def test_borders_go_around_an_area_its_holes_and_along_its_inner_corners():
    ring = np.ones((3, 3), dtype=bool)
    ring[1, 1] = False
    outer, inner = sorted(borders(ring, 10, 1), key=lambda line: min(line))
    assert set(outer) >= {(0.5, 0.5), (28.5, 0.5), (28.5, 28.5), (0.5, 28.5)}
    assert set(inner) == {(8.5, 8.5), (20.5, 8.5), (20.5, 20.5), (8.5, 20.5)}  # of the ring, not of the hole
    diagonal = np.eye(2, dtype=bool)
    assert sorted(len(line) for line in borders(diagonal, 10)) == [4, 4]  # two that meet in a point
    angle = np.array([[True, False], [True, True]])
    (line,) = borders(angle, 10, 2)
    assert {(7.5, 11.5), (17.5, 11.5), (7.5, 1.5)} <= set(line)
