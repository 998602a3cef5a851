"""How fast are images read and cropped? Images per second and core, beside the input pipeline of other projects.

python -m benchmarks.input [--sizes 375x500 900x1200] [--qualities 75 95] [--images N] [--folder FOLDER] [--crop 224]

Without a folder, images are made: noise, the finer the weaker, in JPEG files. Each pipeline reads the same files in
turn, in one process with one thread, ten times; a ratio is that of one turn. Crops are those of the published recipe:
30 to 100 % of the area, 224 x 224 pixels unless --crop says otherwise.

- torchvision: a Pillow image, RandomResizedCrop, ToTensor and Normalize, as most projects, the reference implementation
  among them, read images
- Pillow: the same crop of the image that Pillow decodes, here; uint8, normalised on the device
- ours: what training does when it reads an image for the first time
- cached: what it does when it reads an image again that data.cache_mib has room for
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import simplejpeg  # type: ignore[import-untyped]
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torchvision import transforms
from torchvision.datasets.folder import pil_loader

from ijepa.data.decode import decode
from ijepa.data.files import Files
from ijepa.data.images import TrainTransform

SCALE, ASPECT = (0.3, 1.0), (3 / 4, 4 / 3)
CACHE_BYTES = 2**30
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FAST = {"fastdct": True, "fastupsample": True}
ROUNDS = 10
SUFFIXES = (".png", ".jpg", ".jpeg")
OCTAVES = (4, 8, 16, 32, 64, 128, 256, 512)


def made(height: int, width: int, seed: int) -> Image.Image:
    """Noise of many scales, the finer the weaker."""
    rng = np.random.default_rng(seed)
    values = np.zeros((height, width, 3))
    for cells in OCTAVES:
        rows, columns = (max(2, round(side * cells / max(height, width))) for side in (height, width))
        for channel in range(3):
            noise = Image.fromarray(rng.normal(size=(rows, columns)).astype(np.float32))
            values[:, :, channel] += np.asarray(noise.resize((width, height), Image.Resampling.BICUBIC)) / cells**0.3
    values = (values - values.mean()) / values.std() * 50 + 120
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))


def pipelines(paths: list[str], side: int) -> dict[str, Callable[[int, int], Tensor]]:
    """By name: functions that read the image of a number with a seed."""
    files, cached = Files(paths, {}, 3, None), Files(paths, {}, 3, None, cache_bytes=CACHE_BYTES)
    ours = TrainTransform((side, side), SCALE, ASPECT, flip=False)
    common = transforms.Compose([
        transforms.RandomResizedCrop((side, side), scale=SCALE, ratio=ASPECT), transforms.ToTensor(),
        transforms.Normalize(MEAN, STD),
    ])  # fmt: skip

    def by_torchvision(index: int, seed: int) -> Tensor:
        torch.default_generator.manual_seed(seed)
        found: Tensor = common(pil_loader(paths[index]))
        return found

    return {
        "torchvision": by_torchvision,
        "Pillow": lambda index, seed: ours(decode(paths[index], 3), seed),
        "ours": lambda index, seed: ours.read(files, index, seed),
        "cached": lambda index, seed: ours.read(cached, index, seed),
    }


def measure(paths: list[str], side: int) -> tuple[dict[str, list[float]], list[float]]:
    """Seconds per image by pipeline, a number for each turn; and ours less Pillow's, on average, for each image."""
    readers = pipelines(paths, side)
    seconds: dict[str, list[float]] = {name: [] for name in readers}
    for turn in range(-1, ROUNDS):  # the first is not counted
        order = list(readers) if turn % 2 else list(reversed(readers))
        for name in order:
            started = time.perf_counter()
            for index in range(len(paths)):
                readers[name](index, 1000 * turn + index)
            if turn >= 0:
                seconds[name].append((time.perf_counter() - started) / len(paths))
    differences = [(readers["ours"](index, index).float() - readers["Pillow"](index, index)).abs().mean().item()
                   for index in range(len(paths))]  # fmt: skip
    return seconds, differences


def decoding(paths: list[str]) -> list[float]:
    """Milliseconds to decode an image at its size, a half and a quarter of it, and at its size with `FAST`: medians."""
    contents = [Path(path).read_bytes() for path in paths]
    times: list[list[float]] = [[], [], [], []]
    for data in contents * ROUNDS:
        height, width, _, _ = simplejpeg.decode_jpeg_header(data)
        for number, options in enumerate([{}, {}, {}, FAST]):
            part = (1, 2, 4, 1)[number]
            started = time.perf_counter()
            simplejpeg.decode_jpeg(data, min_height=-(-height // part), min_width=-(-width // part), **options)
            times[number].append(1000 * (time.perf_counter() - started))
    return [statistics.median(each) for each in times]


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.input", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--sizes", nargs="+", default=["375x500", "900x1200"], metavar="HEIGHTxWIDTH")
    parser.add_argument("--qualities", nargs="+", type=int, default=[75, 95])
    parser.add_argument("--images", type=int, default=32, help="of each size, or of the folder")
    parser.add_argument("--folder", type=Path, help="of JPEG or PNG files, measured instead")
    parser.add_argument("--crop", type=int, default=224, metavar="PIXELS", help="height and width of the crops")
    values = parser.parse_args()
    torch.set_num_threads(1)
    table = Table("images", "pipeline", "images/s and core", "torchvision's time / its own, median (range)",
                  "mean difference from Pillow's, mean (largest)")  # fmt: skip
    decoded = Table(
        "images", "whole", "a half", "a quarter", "whole, faster and less exact", title="decoding alone, ms"
    )
    with tempfile.TemporaryDirectory() as scratch:
        groups: dict[str, list[str]] = {}
        if values.folder is not None:
            found = sorted(str(path) for path in values.folder.rglob("*") if path.suffix.lower() in SUFFIXES)
            groups[values.folder.name] = found[: values.images]
        for size in values.sizes if values.folder is None else []:
            height, width = map(int, size.split("x"))
            for number in range(values.images):
                image = made(height, width, number)
                for quality in values.qualities:
                    path = str(Path(scratch) / f"{size}-{quality}-{number}.jpg")
                    image.save(path, "JPEG", quality=quality)
                    groups.setdefault(f"{size}, quality {quality}", []).append(path)
        for name, paths in groups.items():
            seconds, differences = measure(paths, values.crop)
            bytes_each = statistics.mean(Path(path).stat().st_size for path in paths)
            for pipeline, times in seconds.items():
                ratios = sorted(base / own for base, own in zip(seconds["torchvision"], times, strict=True))
                compared = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
                apart = f"{statistics.mean(differences):.2f} / 255 ({max(differences):.2f})"
                shown = f"{name}, {bytes_each / 1000:.0f} kB"
                table.add_row(shown, pipeline, f"{1 / statistics.median(times):.0f}", compared,
                              apart if pipeline == "ours" else "")  # fmt: skip
            if all(path.lower().endswith(SUFFIXES[1:]) for path in paths):
                decoded.add_row(shown, *(f"{each:.2f}" for each in decoding(paths)))
    Console(width=140).print(table, decoded)


if __name__ == "__main__":
    main()
