"""Every kind of image can be shown and written."""

import numpy as np
import pytest
import torch
from PIL import Image

from ijepa import pictures


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 12])
def test_every_kind_of_image_can_be_shown(channels):
    images = torch.rand(2, channels, 4, 4)
    assert np.array_equal(pictures.rgb(images)[..., 0], images[:, 0].numpy())
    stretched = pictures.rgb(1000 * images - 300)
    assert stretched.shape == (2, 4, 4, 3)
    assert stretched.min() == 0
    assert stretched.max() == 1
    assert np.isfinite(pictures.rgb(torch.full((1, channels, 4, 4), -7.0))).all()


def test_narrow_and_constant_features(tmp_path):
    images = torch.rand(1, 3, 4, 4)
    for features in (torch.rand(4, 4, 2), torch.ones(1, 4, 8)):
        path = tmp_path / "new" / "picture.png"
        colours = pictures.stretched(pictures.components_of(features)(features))
        pictures.write(pictures.colours(images, {"ours": colours}, (2, 2)), path)
        assert Image.open(path).format == "PNG"
    assert [file.name for file in path.parent.iterdir()] == ["picture.png"]
