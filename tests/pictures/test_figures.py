"""What the figures show, read back from their axes."""

import numpy as np
import pytest
import torch
from PIL import Image

from ijepa import pictures
from ijepa.masking import Masks
from ijepa.models.attention import attention
from ijepa.models.encoder import Encoder
from ijepa.pictures import Colours
from ijepa.pictures.masks import borders

GREY = np.float32(pictures.HIDDEN)


def shown(figure):
    return [[axes.get_images()[0].get_array() for axes in row] for row in _rows(figure)]


def titles(figure):
    return [axes.get_title() for axes in _rows(figure)[0]]


def _rows(figure):
    columns = figure.axes[0].get_subplotspec().get_gridspec().ncols
    return [figure.axes[i : i + columns] for i in range(0, len(figure.axes), columns)]


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


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 12])
def test_every_kind_of_image_can_be_shown(channels):
    images = torch.rand(2, channels, 4, 4)
    assert np.array_equal(pictures.rgb(images)[..., 0], images[:, 0].numpy())
    stretched = pictures.rgb(1000 * images - 300)
    assert stretched.shape == (2, 4, 4, 3)
    assert stretched.min() == 0
    assert stretched.max() == 1
    assert np.isfinite(pictures.rgb(torch.full((1, channels, 4, 4), -7.0))).all()


def test_components_are_numpy_s_and_forget_the_positions():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(8, 6, 5, generator=generator) * torch.tensor([5.0, 3, 2, 0.1, 0.1])
    figure = pictures.components(torch.rand(2, 3, 4, 6), {"ours": features}, (2, 3))
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
    again = shown(pictures.components(torch.rand(2, 3, 4, 6), {"ours": moved}, (2, 3)))
    assert np.allclose(again[0][1], shown(figure)[0][1], atol=1e-3)


def test_of_few_images_only_the_mean_of_all_patches_is_subtracted():
    features = torch.randn(1, 6, 5)
    row = shown(pictures.components(torch.rand(1, 3, 4, 6), {"ours": features}, (2, 3)))[0]
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
    *rows, _ = _rows(figure)  # the colour bar
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
    for image, row in enumerate(_rows(figure)[:3]):
        found = np.asarray(row[1].get_images()[0].get_array())
        assert np.allclose(found.ravel(), unit[image] @ unit[1, 1], atol=1e-5)
        assert len(row[0].patches) == len(row[1].patches) == (2 if image == 1 else 0)


def encoder(heads=4):
    network = Encoder((8, 12), 2, 3, 16, 3, heads, 2.0).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.8)  # initial weights attend to everything alike
    return network


@pytest.mark.parametrize("block", [-1, 0, 1])
def test_attention_is_timm_s(block):
    network, images = encoder(), torch.randn(2, 3, 8, 12)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    found = attention(network, images, block)
    assert found.shape == (2, 4, 24, 24)
    assert torch.allclose(found.sum(dim=-1), torch.ones(2, 4, 24), atol=1e-5)
    assert found.std() > 0.01
    seen = []
    layer = network.blocks[block].attn
    layer.fused_attn = False
    layer.attn_drop.register_forward_hook(lambda module, inputs, output: seen.append(output))
    network(images)
    torch.testing.assert_close(found, seen[0], atol=1e-6, rtol=1e-5)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_attention_maps_show_what_is_received_and_what_a_patch_draws_on():
    weights = torch.rand(2, 3, 6, 6).softmax(dim=-1)
    figure = pictures.attention(torch.rand(2, 3, 4, 6), weights, (2, 3), (1, 0), heads=2)
    assert titles(figure) == ["image", "all heads", "head 1", "head 2", "from patch"]
    for image, row in enumerate(_rows(figure)[:2]):
        found = [np.asarray(axes.get_images()[0].get_array()).ravel() for axes in row[1:]]
        each = 6 * weights[image].numpy()
        assert np.allclose(found[0], each.mean(axis=(0, 1)), atol=1e-5)
        assert np.allclose(found[0].mean(), 1, atol=1e-5)  # uniform
        assert np.allclose(found[2], each[1].mean(axis=0), atol=1e-5)
        assert np.allclose(found[3], each[:, 3].mean(axis=0), atol=1e-5)
    alone = pictures.attention(torch.rand(1, 3, 4, 4), torch.ones(1, 1, 1, 1), (1, 1), (0, 0), heads=4)
    assert titles(alone) == ["image", "all heads", "head 1", "from patch"]


def test_narrow_and_constant_features(tmp_path):
    images = torch.rand(1, 3, 4, 4)
    for features in (torch.rand(4, 4, 2), torch.ones(1, 4, 8)):
        path = tmp_path / "new" / "picture.png"
        pictures.write(pictures.components(images, {"ours": features}, (2, 2)), path)
        assert Image.open(path).format == "PNG"
    assert [file.name for file in path.parent.iterdir()] == ["picture.png"]
