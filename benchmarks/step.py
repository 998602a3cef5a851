"""What does a training step cost, and where does the time go? Images per second, memory, FLOPs and shares by part.

python -m benchmarks.step [--cases cifar default] [--precisions 32-true bf16-mixed] [--reference FOLDER] [--lightly]

Images are random, and masks are those of the configuration. Input, which loader processes prepare beside the steps, is
what one core takes for crops and masks of a batch of decoded images; for decoding: benchmarks.input. The share of the
matrix rate is the step's FLOPs per second over those of one product of two matrices, measured beside it. With
``--reference``, the folder of a checkout of facebookresearch/ijepa, its networks take steps in turn with ours, on the
same images and masks (its loop has no autocast on a CPU; here both have); with ``--lightly`` those of lightly, too.
Memory is the process's peak in steps, less what it held before the networks were built; each case and precision has a
process of its own.
"""

import argparse
import contextlib
import multiprocessing
import resource
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from benchmarks.peers import Autocast, Lightly, Peer, Reference
from ijepa import compose_config
from ijepa.data.datamodule import Batch, Collate, Crops, SampleIndex
from ijepa.data.sets import Source, Uint8Images
from ijepa.distributed import sharding
from ijepa.masking import Masks
from ijepa.models.pretrained import PretrainedEncoder
from ijepa.models.transformer import write_out_attention
from ijepa.run import build
from ijepa.run.teacher_run import teacher_config
from ijepa.training import optimizer as optim
from ijepa.training.module import Pretraining

PUBLISHED = ["objective=smooth_l1", "model.init=published", "data=folder", "data.root=.", "data.image_size=224"]
CASES = {
    "vit_small": [*PUBLISHED, "model=vit_small", "model.patch_size=16", "data.batch_size=16"],
    "vit_base": [*PUBLISHED, "model=vit_base", "model.patch_size=16", "data.batch_size=8"],
    "vit_large": [*PUBLISHED, "model=vit_large", "model.patch_size=16", "data.batch_size=4"],
    "vit_huge": [*PUBLISHED, "model=vit_huge", "model.patch_size=14", "data.batch_size=2"],
    "default": [],
    "cifar": ["experiment=small_images", "data=cifar10", "model=vit_micro", "model.patch_size=4", "model.width=192",
              "predictor.width=96", "objective.target_depths=[0,2,4,6]"],
    "student": ["experiment=student", "data=cifar10", "model=vit_micro", "model.patch_size=4", "model.width=192"],
}  # fmt: skip
DEFAULT = ("vit_small", "vit_base", "default", "cifar")
Checkpointing = Literal[False, True, "selective"]
KINDS: dict[str | None, Checkpointing] = {None: False, "full": True, "selective": "selective"}
PARTS = ("target encoder", "context encoder", "predictor", "objective", "backward", "optimizer", "EMA", "other")
WARMUP_STEPS = 3


class Ours:
    """Steps of this project's networks, without a trainer."""

    def __init__(
        self, overrides: list[str], precision: str, device: torch.device, compiled: bool = False,
        checkpointing: Checkpointing = False,
    ) -> None:  # fmt: skip
        self.config = compose_config(*overrides)
        torch.manual_seed(0)
        self.module, _ = build.pretraining(self.config, 10_000, Pretraining, teacher=self._teacher())
        self.module.to(device)
        self.autocast = _autocast(precision, device)
        if precision != "32-true" and device.type == "cpu":
            write_out_attention(self.module)
        sharding.prepare(self.module.networks(), precision == "bf16-true", checkpointing, compiled, None)
        on_gpu = device.type == "cuda"
        values = (self.module.named_parameters(), 1e-4, self.module.betas, self.module.eps, on_gpu)
        self.optimizer: torch.optim.Optimizer = (
            optim.MuonAdamW(*values, on_gpu or precision != "32-true") if self.module.muon else optim.adamw(*values)
        )
        self.device = device
        self.seconds = dict.fromkeys(PARTS, 0.0)

    def _teacher(self) -> PretrainedEncoder | None:
        """The frozen encoder whose features are predicted, if any, untrained."""
        if self.config.teacher is None:
            return None
        module, _ = build.pretraining(teacher_config(self.config, Path()), 10_000, Pretraining)
        found = module.evaluated()
        assert found is not None
        return PretrainedEncoder(found.network, found.spec).eval()

    def batches(self) -> Iterator[tuple[Tensor, Masks]]:
        """Images [B, C, H, W] and their masks, without end."""
        data, sampler = self.config.data, build.sampler(self.config)
        draw = torch.Generator().manual_seed(0)
        images = torch.randn(data.batch_size, data.channels, *data.image_size, generator=draw).to(self.device)
        step = 0
        while True:
            masks = sampler.sample(0, step, np.arange(data.batch_size))
            context, targets, valid = (part if part is None else part.to(self.device) for part in masks)
            assert context is not None
            assert targets is not None
            yield images, Masks(context, targets, valid)
            step += 1

    def input_seconds(self, batches: int = 3) -> float:
        """Seconds of one core for a batch: crops of decoded images of the network's size, and masks."""
        data, sampler = self.config.data, build.sampler(self.config)
        shape = (data.batch_size, *data.image_size, data.channels)
        pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        images = Uint8Images(pixels, {}, data.channels, "random")
        transform = build.data(data, Source(images, images, {}), sampler, 1, self.config.hardware, 0).transform
        crops, collate = Crops(images, transform, 0), Collate(sampler, 0)
        started = time.perf_counter()
        for step in range(batches):
            collate([crops[SampleIndex(step, image, 0, image)] for image in range(data.batch_size)])
        return (time.perf_counter() - started) / batches

    def flops(self, masks: Masks) -> float:
        """Of a step on these masks."""
        sizes = masks.context.shape[1], *masks.targets.shape[1:]
        return len(masks.context) * self.module.image_flops.step_flops(*sizes) + self.module.optimizer_flops()

    def step(self, images: Tensor, masks: Masks) -> None:
        with self.autocast():
            loss = self.module.training_step(Batch(images, masks, []), 0)["loss"]
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self._average()

    def timed_step(self, images: Tensor, masks: Masks) -> None:
        """`step`, whose parts add to ``seconds``."""
        jepa, started = self.module.jepa, self._now()
        before = sum(self.seconds.values())
        with contextlib.ExitStack() as stack:
            for name, part in (("target encoder", jepa.target_encoder), ("context encoder", jepa.context_encoder),
                               ("predictor", jepa.predictor), ("objective", self.module.objective)):  # fmt: skip
                stack.enter_context(self._timed_module(name, part))
            with self.autocast():
                loss = self.module.training_step(Batch(images, masks, []), 0)["loss"]
        for name, call in (("backward", loss.backward), ("optimizer", self._update), ("EMA", self._average)):
            with self._timed(name):
                call()
        self.seconds["other"] += self._now() - started - (sum(self.seconds.values()) - before)

    def _update(self) -> None:
        self.optimizer.step()
        self.optimizer.zero_grad()

    def _average(self) -> None:
        self.module.jepa.update_target_encoder(0.996)
        if self.module.jepa.statistics is not None:
            self.module.jepa.statistics.update()

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    @contextlib.contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        started = self._now()
        yield
        self.seconds[name] += self._now() - started

    @contextlib.contextmanager
    def _timed_module(self, name: str, part: nn.Module) -> Iterator[None]:
        started = 0.0

        def start(*_: Any) -> None:
            nonlocal started
            started = self._now()

        def stop(*_: Any) -> None:
            self.seconds[name] += self._now() - started

        hooks = [part.register_forward_pre_hook(start), part.register_forward_hook(stop)]
        yield
        for hook in hooks:
            hook.remove()


def _autocast(precision: str, device: torch.device) -> Autocast:
    return lambda: torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16-mixed")


def matrix_rate(precision: str, device: torch.device) -> float:
    """FLOPs per second of a product of two square matrices: of 2048 rows, on a GPU of 8192."""
    side = 8192 if device.type == "cuda" else 2048
    matrix = torch.randn(side, side, device=device, dtype=torch.float32 if precision == "32-true" else torch.bfloat16)
    best = float("inf")
    for _ in range(7):
        started = time.perf_counter()
        matrix @ matrix
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - started)
    return 2 * side**3 / best


def measure(
    case: str,
    precision: str,
    reference: Path | None,
    lightly: bool,
    steps: int,
    threads: int,
    compiled: bool,
    checkpointing: Checkpointing,
) -> dict[str, Any]:
    """One case in one precision: numbers for the tables."""
    torch.set_num_threads(threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    held = _peak(device)
    ours = Ours(CASES[case], precision, device, compiled, checkpointing)
    batches = ours.batches()
    for _ in range(WARMUP_STEPS):
        ours.step(*next(batches))
    memory = _peak(device) - held
    peers: dict[str, Peer | Ours] = {}
    encoder, autocast = ours.module.jepa.context_encoder, ours.autocast
    if reference is not None:
        peers["reference"] = Reference(reference, ours.config, encoder, autocast, device)
    if lightly:
        peers["lightly"] = Lightly(ours.config, encoder, autocast, device)
    if compiled or checkpointing:
        peers["plain"] = Ours(CASES[case], precision, device)
    for _ in range(WARMUP_STEPS):
        for peer in peers.values():
            peer.step(*next(batches))
    times: list[float] = []
    ratios: dict[str, list[float]] = {name: [] for name in peers}
    shares: list[float] = []
    turns: list[tuple[str, Ours | Peer]] = [("ours", ours), *peers.items()]
    for number in range(steps):
        images, masks = next(batches)
        taken = {}
        for name, one in turns[number % len(turns) :] + turns[: number % len(turns)]:
            started = ours._now()
            one.step(images, masks)
            taken[name] = ours._now() - started
        times.append(taken["ours"])
        for name in peers:
            ratios[name].append(taken[name] / taken["ours"])
        shares.append(ours.flops(masks) / taken["ours"] / matrix_rate(precision, device))
    for _ in range(max(2, steps // 2)):
        ours.timed_step(*next(batches))
    whole = sum(ours.seconds.values())
    return {
        "images": ours.config.data.batch_size / statistics.median(times),
        "memory": memory,
        "flops": ours.flops(masks),
        "share": statistics.median(shares),
        "ratios": {name: sorted(values) for name, values in ratios.items()},
        "parts": {name: seconds / whole for name, seconds in ours.seconds.items()},
        "input": ours.input_seconds() / statistics.median(times),
    }


def operators(case: str, precision: str, threads: int) -> list[tuple[str, float]]:
    """torch's operators and their own shares of the time of two steps, the largest first."""
    torch.set_num_threads(threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    ours = Ours(CASES[case], precision, device)
    batches = ours.batches()
    for _ in range(WARMUP_STEPS):
        ours.step(*next(batches))
    with torch.profiler.profile() as profile:
        for _ in range(2):
            ours.step(*next(batches))
            ours._now()
    on_gpu = device.type == "cuda"
    seconds = {
        event.key: event.self_device_time_total if on_gpu else event.self_cpu_time_total
        for event in profile.key_averages()
    }
    whole = sum(seconds.values())
    return sorted(((name, part / whole) for name, part in seconds.items()), key=lambda found: -found[1])


def peer_memory(name: str, case: str, precision: str, reference: Path | None, threads: int) -> int:
    """Bytes of another's networks in steps, as `measure` finds ours: the peak less what was held before."""
    torch.set_num_threads(threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    ours = Ours(CASES[case], precision, device)
    batches, encoder = ours.batches(), ours.module.jepa.context_encoder
    held = _peak(device)
    if name == "reference":
        assert reference is not None
        peer: Peer | Ours = Reference(reference, ours.config, encoder, ours.autocast, device)
    elif name == "plain":
        peer = Ours(CASES[case], precision, device)
    else:
        peer = Lightly(ours.config, encoder, ours.autocast, device)
    for _ in range(WARMUP_STEPS):
        peer.step(*next(batches))
    return _peak(device) - held


def _peak(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.step", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--cases", nargs="+", choices=CASES, default=DEFAULT)
    parser.add_argument("--precisions", nargs="+", choices=("32-true", "bf16-mixed"), default=["32-true", "bf16-mixed"])
    parser.add_argument("--reference", type=Path, metavar="FOLDER", help="a checkout of facebookresearch/ijepa")
    parser.add_argument("--lightly", action="store_true", help="compare with lightly's modules, too")
    parser.add_argument("--steps", type=int, default=12, help="of each, after the first three")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--compile", action="store_true", help="ours is compiled, and compared with plain ours")
    parser.add_argument("--checkpointing", choices=("full", "selective"), help="of ours, compared with plain ours")
    parser.add_argument("--operators", action="store_true", help="the shares of torch's operators instead")
    values = parser.parse_args()
    console = Console(width=140)
    table = Table("case", "precision", "images/s", "GFLOPs per step", "of the matrix rate", "memory, MiB",
                  "others / ours: time, median (range); memory")  # fmt: skip
    parts = Table("case", "precision", *PARTS, "beside it: input", title="shares of the step's time, %")
    for case in values.cases:
        for precision in values.precisions:
            if values.operators:
                with multiprocessing.get_context("spawn").Pool(1) as pool:
                    largest = pool.apply(operators, (case, precision, values.threads))[:20]
                print(f"{case}, {precision}:", ", ".join(f"{name} {100 * share:.1f}" for name, share in largest))
                continue
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                arguments = (case, precision, values.reference, values.lightly, values.steps, values.threads,
                             values.compile, KINDS[values.checkpointing])  # fmt: skip
                found = pool.apply(measure, arguments)
            compared = []
            for name, ratios in found["ratios"].items():
                shown = f"{name} {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
                with multiprocessing.get_context("spawn").Pool(1) as pool:
                    held = pool.apply(peer_memory, (name, case, precision, values.reference, values.threads))
                compared.append(f"{shown}; {held / found['memory']:.2f}")
            numbers = [f"{found['images']:.1f}", f"{found['flops'] / 1e9:.0f}", f"{100 * found['share']:.0f} %"]
            table.add_row(case, precision, *numbers, f"{found['memory'] / 2**20:.0f}", "\n".join(compared))
            parts.add_row(case, precision, *(f"{100 * found['parts'][name]:.0f}" for name in PARTS),
                          f"{100 * found['input']:.0f}")  # fmt: skip
    if values.operators:
        return
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {values.threads} threads"
    console.print(f"{where}; {values.steps} steps", table, parts, sep="\n")


if __name__ == "__main__":
    main()
