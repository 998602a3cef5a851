"""Pairs with similar features: all of them, each once, the most similar first."""

import pytest
import torch
from torch.nn import functional as F

from ijepa.evaluation import duplicates


@pytest.mark.parametrize("chunk", [2**24, 100, 1])
def test_pairs_are_those_of_all_similarities(monkeypatch, chunk):
    monkeypatch.setattr(duplicates, "CHUNK", chunk)
    features = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    features[7], features[41] = features[3] * 1.0001, features[3]
    found = duplicates.similar_pairs(features, 0.9, 1000, 40)
    keys = F.normalize(features - features.mean(dim=0), dim=1)
    similarity = (keys @ keys.T).triu(diagonal=1)
    expected = {(i, j): similarity[i, j].item() for i, j in (similarity >= 0.9).nonzero().tolist()}
    assert len(expected) > 10
    pairs = {tuple(pair): cosine for pair, cosine in zip(found.rows.tolist(), found.cosines.tolist(), strict=True)}
    assert pairs == pytest.approx(expected, abs=1e-6)
    assert found.cosines.tolist() == sorted(found.cosines.tolist(), reverse=True)
    assert {tuple(pair) for pair in found.rows[:3].tolist()} == {(3, 7), (3, 41), (7, 41)}
    few = duplicates.similar_pairs(features, 0.9, 5, 40)
    assert few.rows.tolist() == found.rows[:5].tolist()
    between = [pair for pair in expected if pair[0] < 40 <= pair[1]]
    for part in (found, few):  # all are counted, whatever is listed
        assert (part.total, part.across) == (len(expected), len(between))
        assert {row + 40 for row in part.leaked.nonzero().flatten().tolist()} == {pair[1] for pair in between}
    assert len(duplicates.similar_pairs(torch.zeros(0, 4), 0.9, 5, 0).cosines) == 0


def test_all_identical_images_are_found_at_a_threshold_of_one():
    one = torch.randn(1, 192, generator=torch.Generator().manual_seed(1))
    others = torch.randn(30, 192, generator=torch.Generator().manual_seed(2))
    found = duplicates.similar_pairs(torch.cat([one.expand(20, -1), others]), 1.0, 1000, 50)
    assert found.total == 20 * 19 / 2
    assert duplicates.similar_pairs(one.expand(2, -1), 0.9, 5, 2).total == 1  # two images in all
