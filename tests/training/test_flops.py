import pytest
import torch
from helpers import train_config
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ijepa.masking import Masks
from ijepa.run import build


@pytest.mark.parametrize(
    "target", ["output", "input", "pixels", "output objective.target_depths=[0,2]", "output predictor.attention=cross"]
)
@pytest.mark.parametrize("size", ["[32,48]", "64"])
def test_flops_from_shapes_are_torch_s(target, size):
    objective = f"objective.target={target}".split()
    config = train_config(
        "model.width=48", "model.depth=3", "model.patch_size=8", f"data.image_size={size}", *objective
    )
    jepa = build.networks(config)
    context, blocks, patches, batch = 9, 3, 4, 2
    patch_count = jepa.context_encoder.grid[0] * jepa.context_encoder.grid[1]
    draw = torch.Generator().manual_seed(0)
    chosen = torch.stack([torch.randperm(patch_count, generator=draw)[:20] for _ in range(batch)])
    masks = Masks(chosen[:, :context], chosen[:, context : context + 4][:, None].expand(-1, blocks, -1))
    images = torch.randn(batch, config.data.channels, *config.data.image_size)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:  # CPUs' fused kernel is not counted
        predictions, targets, _ = jepa(images, masks)
        (predictions - targets).pow(2).mean().backward()
    counted = build.image_flops(config).step_flops(context, blocks, patches) * batch
    assert counted == pytest.approx(counter.get_total_flops(), rel=0.005)
