"""What a decoder's configuration costs: FLOPs per image, parameters and memory, without training.

python -m benchmarks.decoder_cost [--encoder model=vit_huge model.patch_size=14 data.image_size=224] [--devices 8]
    [experiment=decoder_in1k KEY=VALUE ...]

FLOPs are counted by torch on networks that compute nothing. Activations are the bytes that autograd saves for the
backward pass under bf16 autocast, on the CPU, of two pictures more than two. What a GPU's kernels, fragmentation and
frozen networks need in passing is not in it, nor are the further tokens of decoder.pooled=false.
"""

import argparse
import gc
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from ijepa import compose_config
from ijepa.models.conditions import Conditions, Representation
from ijepa.models.decoder import SketchDecoder
from ijepa.models.diffusion import Diffusion, Sampling
from ijepa.models.sketcher import Sketcher
from ijepa.run import build
from ijepa.run.encoders import spec
from ijepa.training.decoder import DecoderTraining

GIB = 2**30
BYTES = 4 * 5
"""For each trained parameter: weight, gradient, two moments of AdamW, and the moving average, in float32."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--encoder", nargs="+", metavar="KEY=VALUE", help="the run whose representations are drawn",
                        default=["model=vit_huge", "model.patch_size=14", "data.image_size=224"])  # fmt: skip
    parser.add_argument("--devices", type=int, default=8)
    parser.add_argument("overrides", nargs="*", default=["experiment=decoder_in1k"])
    options = parser.parse_args()
    config = compose_config(*options.overrides, *options.encoder, "checkpoint=RUN_DIR", "data=folder", "data.root=.")
    chosen, images = config.decoder, config.data.batch_size // options.devices
    assert chosen is not None
    encoder = compose_config(*options.encoder, "data=folder", "data.root=.")
    masks = build.sampler_of(config.masking, _grid(encoder)).sample(0, 0, torch.arange(1).numpy())
    blocks = masks.targets.shape[1]
    with torch.device("meta"):
        module = _module(config, encoder)
        flops = module.image_flops(masks.context.shape[1], *masks.targets.shape[1:])
        per_block = module.image_flops(masks.context.shape[1], blocks + 1, masks.targets.shape[2]) - flops
    trained, frozen = (_count(part) for part in (module.decoder, module.sketcher.conditions))
    activations = _activations(config, encoder, 4) - _activations(config, encoder, 2)
    held = (trained * BYTES + 4 * frozen) / GIB
    pictures = images * blocks
    table = Table("what", "value", title=" ".join(options.overrides))
    for what, value in (
        ("parameters, trained and frozen", f"{trained / 1e6:.1f} M, {frozen / 1e6:.1f} M"),
        ("GFLOPs per image", f"{flops / 1e9:.1f}, of which each further block {per_block / 1e9:.1f}"),
        ("epochs", f"{config.schedule.epochs}"),
        ("weights, gradients, optimiser, average, on each device", f"{held:.3g} GiB"),
        (f"activations of {pictures} pictures, on each device", f"{pictures * activations / 2 / GIB:.3g} GiB"),
    ):
        table.add_row(what, value)
    Console().print(table)


def _grid(config: Any) -> tuple[int, int]:
    return (config.data.image_size[0] // config.model.patch_size, config.data.image_size[1] // config.model.patch_size)


def _count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def _decoder(config: Any, encoder: Any) -> SketchDecoder:
    chosen = config.decoder
    return SketchDecoder(len(config.data.mean), chosen.size, encoder.model.width, chosen.shown, chosen.patch_size,
                         chosen.width, chosen.depth, chosen.heads)  # fmt: skip


def _module(config: Any, encoder: Any) -> DecoderTraining:
    chosen = config.decoder
    jepa = build.networks(encoder)
    conditions = Conditions(chosen.condition, chosen.pooled, _grid(encoder), jepa.target_encoder, jepa.context_encoder,
                            jepa.predictor)  # fmt: skip
    sampling = Sampling(chosen.sampler, chosen.steps, chosen.guidance)
    sketcher = Sketcher(
        _decoder(config, encoder), conditions, Diffusion(chosen.predicts), sampling, spec(encoder.model, encoder.data)
    )
    return DecoderTraining(sketcher, 0, chosen.withheld, build.schedule(config, 1000), (0.9, 0.99), 1e-8)


def _activations(config: Any, encoder: Any, pictures: int) -> int:
    """Bytes that a forward pass of so many pictures saves; weights are not counted."""
    network = _decoder(config, encoder)
    weights = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    held: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            held[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    tokens = torch.randn(pictures, 1, encoder.model.width)
    boxes = torch.tensor([0.0, 0.0, 0.5, 0.5]).expand(pictures, 4)
    seen = Representation(tokens, boxes[:, None], boxes)
    noised = torch.randn(pictures, network.channels, network.size, network.size)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), torch.autocast("cpu", torch.bfloat16):
        loss = network(noised, torch.rand(pictures), seen).square().mean()
    total = sum(tensor.untyped_storage().nbytes() for tensor in held.values())
    del loss
    gc.collect()
    return total


if __name__ == "__main__":
    main()
