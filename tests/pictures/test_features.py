"""Pictures of features: components, colours, similarity."""

import numpy as np
import pytest
import torch
from figures import rows_of, shown, titles

from ijepa import pictures
from ijepa.pictures import Colours


def drawn(count, features):
    """The figure of ``count`` images' components, at patches."""
    values = pictures.components_of(features)(features)
    return pictures.colours(torch.rand(count, 3, 4, 6), {"ours": pictures.stretched(values)}, (2, 3))


def test_components_are_numpy_s_and_forget_the_positions():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(8, 6, 5, generator=generator) * torch.tensor([5.0, 3, 2, 0.1, 0.1])
    figure = drawn(2, features)
    assert titles(figure) == ["image", "ours"]
    flat = (features - features.mean(dim=0)).flatten(0, 1).double().numpy()
    values = flat @ np.linalg.svd(flat, full_matrices=False)[2][:3].T
    low, high = np.percentile(values, (2, 98), axis=0)
    expected = np.clip((values - low) / (high - low), 0, 1).reshape(8, 2, 3, 3)
    for row, wanted in zip(shown(figure), expected, strict=False):
        for channel in range(3):
            found = np.asarray(row[1])[..., channel]
            flips = [np.abs(found - wanted[..., channel]).max(), np.abs(1 - found - wanted[..., channel]).max()]
            assert min(flips) < 1e-3  # a component's sign is arbitrary
    moved = features + 100 * torch.randn(6, 5, generator=generator)  # the same in all images
    again = shown(drawn(2, moved))
    assert np.allclose(again[0][1], shown(figure)[0][1], atol=1e-3)


def test_of_few_images_only_the_mean_of_all_patches_is_subtracted():
    features = torch.randn(1, 6, 5)
    row = shown(drawn(1, features))[0]
    assert np.asarray(row[1]).std() > 0.1  # the mean at each place would leave nothing


def colours_of(steps):
    """By step, what `Colours` makes of features [M, N, D]."""
    colours = Colours()
    return [colours(features) for features in steps]


def test_colours_do_not_change_where_only_the_axes_do():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(8, 6, 5, generator=generator) * torch.tensor([5.0, 4.9, 4.8, 0.1, 0.1])
    turn = torch.linalg.qr(torch.randn(5, 5, generator=generator)).Q
    noise = 0.03 * torch.randn(8, 6, 5, generator=generator)
    reordered = features * torch.tensor([-0.97, 1.0, -1.03, 1, 1])  # the weakest becomes the strongest
    first, *others = colours_of([features, features @ turn, -features, reordered, 7 * features + 3 + noise])
    assert first.min() == 0
    assert first.max() == 1
    for other in others:
        assert (first - other).abs().max() < 0.05
    alone = colours_of([reordered])[0]
    assert (first - alone).abs().max() > 0.5
    changed = colours_of([features, features.flip(0)])[1]
    assert (first - changed).abs().max() > 0.5


def test_colours_begin_anew_with_other_images():
    one, other = torch.randn(8, 6, 5), torch.randn(9, 6, 5)
    assert torch.equal(colours_of([one, other])[1], colours_of([other])[0])


def test_similarity_is_the_cosine_to_the_framed_patch():
    features = torch.randn(9, 6, 5)
    centred = (features - features.mean(dim=0)).numpy()
    figure = pictures.similarity(torch.rand(2, 3, 4, 6), features, (2, 3), [(1, 2), (0, 0)])
    assert titles(figure) == ["image", "to patch 1", "to patch 2"]
    *rows, _ = rows_of(figure)  # the colour bar
    for image, row in enumerate(rows):
        for axes, (place, query) in zip(row[1:], (((1, 2), 5), ((0, 0), 0)), strict=True):
            found = np.asarray(axes.get_images()[0].get_array())
            one = centred[image, query]
            norms = np.linalg.norm(one) * np.linalg.norm(centred[image], axis=1)
            assert np.allclose(found.ravel(), centred[image] @ one / norms, atol=1e-5)
            assert found[place] == pytest.approx(1, abs=1e-5)
            assert {frame.get_xy() for frame in axes.patches} == {(2 * place[1] - 0.5, 2 * place[0] - 0.5)}
        assert len(row[0].patches) == 4  # both, in black and white
    assert figure.axes[-1].get_xlabel() == "cosine similarity"


def test_similarity_across_images_asks_for_one_image_s_patch():
    features = torch.randn(9, 6, 5)
    figure = pictures.similarity(torch.rand(3, 3, 4, 6), features, (2, 3), [(0, 1)], of=1)
    unit = torch.nn.functional.normalize(features - features.mean(dim=0), dim=-1)
    for image, row in enumerate(rows_of(figure)[:3]):
        found = np.asarray(row[1].get_images()[0].get_array())
        assert np.allclose(found.ravel(), unit[image] @ unit[1, 1], atol=1e-5)
        assert len(row[0].patches) == len(row[1].patches) == (2 if image == 1 else 0)


def patch_means(images, side=4):
    """Features [B, N, 2] that depend on nothing but the patch: its mean, and the mean of its squares."""
    values = images.unfold(2, side, side).unfold(3, side, side).flatten(2, 3)  # [B, C, N, side, side]
    return torch.stack([values.mean(dim=(1, 3, 4)), values.square().mean(dim=(1, 3, 4))], dim=-1)


def test_fine_scores_follow_an_object_by_a_part_of_a_patch():
    images = torch.zeros(2, 3, 16, 24)
    images[0, :, 5:9, 9:14] = 1
    images[1, :, 6:10, 10:15] = 1  # the same, a pixel further
    found = pictures.Components(torch.zeros(2), torch.eye(2, 3))
    fine = pictures.fine_grid((4, 6), 16)
    assert fine == (16, 24)
    calls = []

    def embed(shifted):
        calls.append(shifted)
        return [patch_means(shifted), 2 * patch_means(shifted)]

    one, two = pictures.fine_scores(embed, images, (4, 6), [found, found])
    assert len(calls) == 16
    torch.testing.assert_close(2 * one, two)
    first, moved = one.unflatten(1, fine)
    torch.testing.assert_close(moved[1:13, 1:21], first[:12, :20])  # the last rows and columns have fewer shifts
    assert first[..., 0].argmax() == 6 * 24 + 11  # the middle of the object
    assert first[..., 2].abs().max() == 0  # there are only two components


def test_fine_scores_of_patches_that_have_no_parts_are_the_plain_ones():
    images, side = torch.rand(9, 1, 14, 21), 7
    features = patch_means(images, side)
    found = pictures.components_of(features)
    assert pictures.fine_grid((2, 3), 14) == (2, 3)
    (fine,) = pictures.fine_scores(lambda shifted: [patch_means(shifted, side)], images[:4], (2, 3), [found])
    torch.testing.assert_close(fine, found(features)[:4])
    assert pictures.fine_grid((2, 3), 12) == (6, 9)  # patches of 6 pixels: thirds
    assert pictures.fine_grid((14, 14), 224) == (56, 56)


def test_fine_colours_turn_with_the_others():
    features, turn = torch.randn(9, 6, 5), torch.linalg.qr(torch.randn(5, 5)).Q
    colours = Colours()
    for step, moved in enumerate((features, features @ turn)):
        shown = colours(moved, lambda found, moved=moved: found(moved)[:2])
        if step == 0:
            first = shown
    assert (shown - first).abs().max() < 0.05


def test_components_of_encoders_are_their_fine_scores():
    images = torch.rand(9, 3, 16, 24)
    figure = pictures.components(images, {"ours": patch_means, "twice": lambda x: 2 * patch_means(x)}, (4, 6), shown=2)
    assert titles(figure) == ["image", "ours", "twice"]
    found = pictures.components_of(patch_means(images))
    (scores,) = pictures.fine_scores(lambda moved: [patch_means(moved)], images[:2], (4, 6), [found])
    expected = pictures.stretched(scores).unflatten(1, (16, 24)).numpy()
    for row, wanted in zip(shown(figure), expected, strict=True):
        np.testing.assert_allclose(np.asarray(row[1]), wanted, atol=1e-6)
        np.testing.assert_allclose(np.asarray(row[2]), wanted, atol=1e-4)
