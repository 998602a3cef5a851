"""How close the pictures of a decoder are: which blocks, and what is measured."""

from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch
from torchmetrics.image.fid import FrechetInceptionDistance

from ijepa.data.sets import UnreadableError

pytest.importorskip("diffusers", reason="only decoders need it")

from ijepa.data.images import EvalTransform
from ijepa.evaluation.decoding import blocks, classifier, decode, measures
from ijepa.evaluation.decoding.blocks import Blocks, Wanted
from ijepa.evaluation.decoding.measures import NOTHING, OTHER, OWN, TRUTH, Downloaded, Drawn, measure, nearest, variance
from ijepa.masking import Masks
from ijepa.models.conditions import Representation
from ijepa.models.decoder import pictures
from ijepa.util.errors import ConfigError

GENERATOR = torch.Generator().manual_seed(0)


class Scene:
    """Images of 8x8 pixels; image i has object i + 1 of colour i + 2 in its upper left quarter. The last is broken."""

    maps = ("colour", "instances")
    labels: ClassVar[dict] = {}

    def __len__(self):
        return 3

    def name(self, index):
        return f"scene {index}"

    def read(self, index):
        if index == 2:
            raise UnreadableError("scene 2 (broken)")
        return torch.full((1, 8, 8), index / 2)

    def read_map(self, index, kind):
        values = torch.zeros(8, 8, dtype=torch.int64)
        values[:4, :4] = index + (2 if kind == "colour" else 1)
        return values


class Halves:
    """Two blocks of a grid of 4x4 patches: by turns the upper and the lower half; the context is the left column."""

    def sample(self, seed, step, positions):
        upper, lower = torch.arange(8), torch.arange(8, 16)
        targets = torch.stack([lower, upper] if step % 2 == 0 else [lower, lower])
        return Masks(torch.tensor([[0, 4, 8, 12]]).repeat(len(positions), 1), targets.repeat(len(positions), 1, 1))


def chosen(wanted, again=False):
    data = SimpleNamespace(
        eval_transform=EvalTransform((8, 8)), channels=1,
        loader=lambda dataset, batches: (
            torch.utils.data.default_collate([dataset[key] for key in keys]) for keys in batches
        ),
    )  # fmt: skip
    return list(blocks.choose(data, Scene(), Halves(), 0, wanted, 2, 2, again))


def test_blocks_with_objects():
    """Object and block, its class, and each image once; a broken image is left out."""
    found = chosen(Wanted("colour", 0.5, 0.5))
    levels = [(label, level) for part in found
              for label, level in zip(part.labels.tolist(), part.images[:, 0, 0, 0].tolist(), strict=True)]  # fmt: skip
    assert sorted(levels) == [(1, 0), (2, 0.5)]
    assert all(block == list(range(8)) for part in found for block in part.masks.targets[:, 0].tolist())
    assert not chosen(Wanted("colour", 0.51))
    assert not chosen(Wanted("colour", 0, 0.51))
    without = chosen(Wanted(None))
    assert sorted(label for part in without for label in part.labels.tolist()) == [-1, -1]
    again = chosen(Wanted("colour"), again=True)
    assert sum(len(part.labels) for part in again) == blocks.PASSES  # those of every other step have an object
    assert sum(len(part.labels) for part in chosen(Wanted(None), again=True)) == 2 * blocks.PASSES


class SortedByClass:
    """1,000 images in the order of their classes, as a folder lists them."""

    labels: ClassVar[dict] = {"class": [index // 50 for index in range(1000)]}

    def __len__(self):
        return 1000

    def read(self, index):
        return torch.full((1, 8, 8), 0.5)


def test_the_order_of_classes_does_not_matter():
    """Else the first blocks would be of a few classes, and another image's representation of the same class."""
    data = SimpleNamespace(
        eval_transform=EvalTransform((8, 8)), channels=1,
        loader=lambda dataset, batches: (
            torch.utils.data.default_collate([dataset[key] for key in keys]) for keys in batches
        ),
    )  # fmt: skip
    parts = blocks.choose(data, SortedByClass(), Halves(), 0, Wanted("class"), 2, 50)
    labels = next(parts).labels
    assert len(labels.unique()) > 12
    assert (labels == labels.roll(1)).float().mean() < 0.2
    other = next(blocks.choose(data, SortedByClass(), Halves(), 1, Wanted("class"), 2, 50)).labels
    assert not torch.equal(labels, other)


class Stub:
    """Draws the mean of the image whose representation it is given, and a tenth of the noise."""

    mean = torch.zeros(1)
    spec = SimpleNamespace(grid=(4, 4))

    def __init__(self, shown="block", condition="target"):
        self.decoder = SimpleNamespace(size=8, shown=shown)
        self.conditions = Means(condition)

    def normalised(self, images):
        return images

    values = normalised

    def truth(self, images, masks):
        return images

    def noise(self, seed, stream, step, positions, count):
        shape = (len(positions) * count, 1, 8, 8)
        return torch.randn(shape, generator=torch.Generator().manual_seed(step))

    def samples(self, representation, noise, guidance=None):
        known = representation.tokens[:, 0].view(-1, 1, 1, 1)
        return (0 if guidance == 0 else known) + 0.1 * noise


class Means:
    def __init__(self, condition):
        self.condition = condition

    def __call__(self, images, masks):
        blocks = torch.tensor([[0.0, 0.5, 0.5, 1.0]]).expand(len(images), 4)
        return Representation(images.mean(dim=(2, 3))[:, None], blocks[:, None], blocks)


def drawn_by(stub, kinds=(OWN, OTHER, NOTHING), limited=lambda pictures: pictures):
    images = torch.arange(6.0).view(6, 1, 1, 1).expand(6, 1, 8, 8)
    masks = Masks(torch.zeros(6, 1).long(), torch.zeros(6, 1, 1).long())
    parts = [Blocks(images[rows], masks.rows(rows), torch.arange(6)[rows]) for rows in (slice(4), slice(4, 6))]
    return decode.draw(stub, parts, 0, 3, kinds, False, limited, print)


def test_pictures_of_its_own_of_another_s_and_of_no_representation():
    """With the same noise, and another image's of the same batch."""
    found = drawn_by(Stub())
    noise = torch.cat([Stub().noise(0, 0, step, range(count), 3) for step, count in ((0, 4), (1, 2))])
    level = {name: (samples - 0.1 * noise.view(6, 3, 1, 8, 8)) for name, samples in found.samples.items()}
    expected = {OWN: [0, 1, 2, 3, 4, 5], OTHER: [3, 0, 1, 2, 5, 4], NOTHING: [0] * 6}
    for name, values in expected.items():
        of_blocks = torch.tensor(values).float().view(6, 1, 1, 1, 1).expand(6, 3, 1, 8, 8)
        torch.testing.assert_close(level[name], of_blocks, atol=1e-6, rtol=0)
    assert found.labels.tolist() == [0, 1, 2, 3, 4, 5]
    torch.testing.assert_close(found.truth[:, 0, 0, 0], torch.arange(6.0))
    assert list(drawn_by(Stub(), (OWN, OTHER)).samples) == [OWN, OTHER]


def test_of_whole_images_drawn_from_a_block_the_block_is_compared():
    whole, part = (drawn_by(Stub("image", condition)).samples[NOTHING] for condition in ("image", "target"))
    corner = torch.tensor([[0.0, 0.5, 0.5, 1.0]]).expand(18, 4)
    expected = pictures(whole.flatten(0, 1), corner, 8, "block")
    assert torch.equal(part.flatten(0, 1), expected)
    assert not torch.equal(whole, part)
    limited = drawn_by(Stub(), limited=lambda pictures: pictures.clamp(0, 1))
    assert limited.truth.max() == limited.samples[OWN].max() == 1


def normal(*shape):
    return torch.randn(shape, generator=GENERATOR)


def test_variance_within_a_representation():
    independent = variance(normal(400, 2, 1, 8, 8), normal(400, 2, 1, 8, 8))
    assert independent.value == pytest.approx(1, abs=0.05)
    same = normal(50, 1, 1, 8, 8).repeat(1, 2, 1, 1, 1)
    assert variance(same, normal(50, 2, 1, 8, 8)).value == 0
    # noise of variance 1 around means of variance 3: a quarter
    own, other = (3**0.5 * normal(400, 1, 1, 8, 8) + normal(400, 2, 1, 8, 8) for _ in range(2))
    assert variance(own, other).value == pytest.approx(0.25, abs=0.02)


def test_the_nearest_block():
    among = normal(40, 3, 4, 4)  # more than 25: cdist multiplies matrices
    distances, indices = nearest(among[[7, 3]] + 0.5, among)
    assert indices.tolist() == [7, 3]
    torch.testing.assert_close(distances, torch.tensor([0.5, 0.5]))


def coloured(count):
    """Plain pictures of two classes, with noise."""
    labels = torch.arange(count) % 2
    return labels.view(-1, 1, 1, 1) * 0.6 + 0.2 + 0.1 * normal(count, 1, 8, 8), labels


def test_samples_of_their_own_representation_are_closer():
    pictures, labels = coloured(256)
    mean, std = torch.full((1, 1, 1), 0.5), torch.full((1, 1, 1), 0.5)
    network = classifier.train(pictures, labels, mean, std, 20, 0)
    again = classifier.train(pictures, labels, mean, std, 20, 0)
    assert torch.equal(network.features(pictures), again.features(pictures))
    truth, own_labels = coloured(60)
    close = truth[:, None] + 0.05 * normal(60, 2, 1, 8, 8)
    samples = {OWN: close, OTHER: close.roll(1, 0), NOTHING: 0.5 + 0.05 * normal(60, 2, 1, 8, 8)}
    rows = measure(Drawn(truth, samples, own_labels), network, pictures, "features", Downloaded())
    results = {row.name: row.values for row in rows}
    assert list(results) == [OWN, OTHER, NOTHING, TRUTH]
    assert results[OWN]["decode_closer"] == results[OWN]["decode_closer_pixels"] == 1
    assert results[OWN]["decode_label"] == results[TRUTH]["decode_label"] == 1
    assert results[OTHER]["decode_label"] == 0
    assert results[OWN]["decode_rmse"] == pytest.approx(0.05, rel=0.1)
    assert results[OWN]["decode_distance"] < results[NOTHING]["decode_distance"] < results[OTHER]["decode_distance"]
    assert results[OWN]["decode_fid"] < 0.1 * results[NOTHING]["decode_fid"]
    assert results[OWN]["decode_variance"] < 0.05
    assert "decode_closer" not in results[OTHER]
    plain = measure(Drawn(truth, samples, own_labels), None, pictures, "features", Downloaded())
    assert set(plain[0].values) == {"decode_rmse", "decode_closer_pixels", "decode_variance", "decode_nearest"}


def test_measures_by_downloaded_networks():
    """Stand-ins see pictures with three channels, as large as they expect."""
    seen = []

    class Network(torch.nn.Module):
        num_features = 3

        def forward(self, pictures):
            seen.append(tuple(pictures.shape[1:]))
            return pictures.mean(dim=(2, 3)) + torch.linspace(0, 1e-3, len(pictures))[:, None].pow(1 + torch.arange(3))

    def lpips(one, other):
        return (one - other).abs().mean(dim=(1, 2, 3))

    truth, labels = coloured(30)
    samples = {OWN: truth[:, None].repeat(1, 2, 1, 1, 1), OTHER: truth[:, None].roll(1, 0).repeat(1, 2, 1, 1, 1)}
    downloaded = Downloaded(lpips, FrechetInceptionDistance(Network(), normalize=True))
    own, other, _ = measure(Drawn(truth, samples, labels), None, truth, "inception", downloaded)
    assert own.values["decode_lpips"] == 0
    assert other.values["decode_lpips"] == pytest.approx(0.6, rel=0.1)
    assert own.values["decode_fid"] == pytest.approx(other.values["decode_fid"], abs=1e-3)  # the same pictures
    assert set(seen) == {(3, 299, 299)}


def test_what_cannot_be_downloaded_is_said_before_anything_is_drawn(monkeypatch):
    def fails(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr("torchmetrics.image.fid.FrechetInceptionDistance.__init__", fails)
    monkeypatch.setattr("torchmetrics.image.lpip.LearnedPerceptualImagePatchSimilarity.__init__", fails)
    for values, message in (
        ({"fid": "inception", "lpips": False}, "task.decode.fid=inception: its weights .*no network.*fid=features"),
        ({"fid": "features", "lpips": True}, "task.decode.lpips=true: its weights could not be loaded .*no network"),
    ):
        with pytest.raises(ConfigError, match=message):
            measures.download(SimpleNamespace(**values), torch.device("cpu"))
