"""Crops for training and evaluation, of pictures and of tensors."""

import numpy as np
import pytest
import torch
from helpers import picture
from image_files import noise, unit
from PIL import Image

from ijepa.data.decode import decode
from ijepa.data.images import EvalTransform, TrainTransform


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (50, 1), (3, 5), (1, 20_000), (20_000, 1)])
@pytest.mark.parametrize("tensor", [False, True])
def test_tiny_and_thin_images(size, tensor):
    values = np.full((*size, 3), 255, np.uint8)
    image = torch.ones(12, *size) if tensor else Image.fromarray(values)
    crop = TrainTransform((32, 48), (0.3, 1.0), (0.75, 4 / 3), flip=True)(image, 3)
    assert crop.shape == ((12 if tensor else 3), 32, 48)
    assert crop.dtype == (torch.float32 if tensor else torch.uint8)
    view = EvalTransform((32, 48), crop=0.875)(image)
    assert view.shape == ((12 if tensor else 3), 32, 48)
    assert torch.allclose(view, torch.ones(()))


def test_of_a_long_image_the_middle(tmp_path):
    """The same as from the whole, up to rounding, without a resized whole."""
    ramp = torch.linspace(0, 1, 4000).expand(1, 40, -1)
    whole = torch.nn.functional.interpolate(ramp[None], (20, 2000), mode="bilinear", antialias=True)[0]
    assert (EvalTransform((20, 20))(ramp) - whole[..., 990:1010]).abs().max() < 1e-3


def test_tensors_are_transformed_like_pictures():
    image = picture(4, 60, 80)
    values = unit(np.asarray(image))
    for crop in (1.0, 0.8):
        view, same = (EvalTransform((32, 48), crop)(one) for one in (image, values))
        assert (view - same).abs().max() < 2 / 255
    transform = TrainTransform((32, 48), (0.3, 1.0), (0.75, 4 / 3), flip=True)
    assert (transform(image, 5) / 255 - transform(values, 5)).abs().max() < 2 / 255
    assert torch.equal(transform(values, 5), transform(values, 5))


def test_an_encoder_s_transform_takes_what_decode_yields(tmp_path):
    values = noise(40, 50)
    deep = Image.fromarray(values)
    deep.save(tmp_path / "a.png")
    grey = EvalTransform((16, 16), channels=1)(decode(str(tmp_path / "a.png"), 1))
    assert torch.equal(EvalTransform((16, 16), channels=1)(deep), grey)
    torch.testing.assert_close(EvalTransform((16, 16), channels=3)(unit(values)), grey.expand(3, -1, -1))
    with pytest.raises(ValueError, match=r"5 channels cannot become data.channels=12"):
        EvalTransform((16, 16), channels=12)(torch.zeros(5, 40, 50))
    with pytest.raises(ValueError, match=r"data.channels=12; try 1, 3 or 4"):
        EvalTransform((16, 16), channels=12)(picture(0, 40, 50))


def test_training_crops_are_a_function_of_the_seed():
    transform = TrainTransform((32, 48), (0.3, 1.0), (0.75, 4 / 3), flip=True)
    image = picture(0, 60, 80)
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first, again, other = transform(image, 7), transform(image, 7), transform(image, 8)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert first.shape == (3, 32, 48)
    assert first.dtype == torch.uint8
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_eval_transform_keeps_proportions_and_ends_at_one():
    ramp = Image.fromarray(np.tile(np.arange(200, dtype=np.uint8), (100, 1)))
    result = EvalTransform((50, 50))(ramp)
    assert result.shape == (1, 50, 50)
    assert result[0, 0, 0].item() == pytest.approx(50.5 / 255, abs=0.01)  # the middle half of the ramp
    assert result[0, 0, -1].item() == pytest.approx(148.5 / 255, abs=0.01)
    zoomed = EvalTransform((50, 50), crop=0.5)(ramp)
    assert zoomed[0, 0, 0].item() == pytest.approx(75.5 / 255, abs=0.01)
    white = Image.new("L", (70, 50), 255)
    assert EvalTransform((50, 50))(white).max() == 1
    tensor = torch.full((1, 50, 70), 255, dtype=torch.uint8)
    assert torch.equal(EvalTransform((50, 50))(tensor), EvalTransform((50, 50))(white))


def test_stretching_keeps_the_whole_image():
    ramp = Image.fromarray(np.linspace(0, 255, 200, dtype=np.uint8)[None].repeat(40, 0))
    whole = EvalTransform((50, 100), crop=0.5, stretch=True)(ramp)
    assert whole.shape == (1, 50, 100)
    assert (whole[0] - torch.linspace(0, 1, 100)).abs().max() < 0.01
