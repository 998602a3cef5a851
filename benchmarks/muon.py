"""How long does a step of Muon take, compared with torch's? On the matrices of encoders of 6 blocks, in turn.

python -m benchmarks.muon
"""

import statistics
import time

import torch
from torch import nn

from ijepa.training.optimizer import Muon

DEPTH, ROUNDS = 6, 9


def matrices(width: int) -> list[nn.Parameter]:
    """The matrices of an encoder's blocks, with gradients."""
    shapes = [(3 * width, width), (width, width), (4 * width, width), (width, 4 * width)] * DEPTH
    parameters = [nn.Parameter(0.02 * torch.randn(shape)) for shape in shapes]
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    return parameters


def seconds(optimizer: torch.optim.Optimizer) -> float:
    """Of one step."""
    started = time.perf_counter()
    optimizer.step()
    return time.perf_counter() - started


def main() -> None:
    """Prints the ratio of the times for some widths."""
    print(f"{torch.get_num_threads()} threads; time of torch's step / time of ours, median (range) of {ROUNDS} pairs")
    for width in (96, 192, 384):
        for bf16 in (False, True):
            torch.manual_seed(0)
            parameters = matrices(width)
            ours = Muon(parameters, lr=0.0, bf16=bf16)
            theirs = torch.optim.Muon(parameters, lr=0.0, adjust_lr_fn="match_rms_adamw")
            seconds(ours), seconds(theirs)
            ratios = sorted(seconds(theirs) / seconds(ours) for _ in range(ROUNDS))
            spread = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
            print(f"width {width}, ours in {'bfloat16' if bf16 else 'float32'}: {spread}")


if __name__ == "__main__":
    main()
