"""How many scenes does one core render per second? ``python -m benchmarks.scenes`` prints the best of three rounds."""

import time

import numpy as np

from ijepa.data.scenes import Settings, labels, render

IMAGES, ROUNDS = 200, 3


def rate(size: tuple[int, int], images: int) -> float:
    """Images per second of CPU time; rendering uses a single thread."""
    settings = Settings(image_size=size)
    render(settings, 0, 0)
    best = 0.0
    for round_ in range(ROUNDS):
        start = time.process_time()
        for index in range(images):
            render(settings, 0, images * round_ + index)
        best = max(best, images / (time.process_time() - start))
    return best


def main() -> None:
    print("python -m benchmarks.scenes")
    print("| size    | images/s per core |")
    print("|---------|-------------------|")
    for side, images in ((64, IMAGES), (128, IMAGES // 2), (224, IMAGES // 4)):
        print(f"| {side:3}x{side:<3} | {rate((side, side), images):17.0f} |")
    start = time.process_time()
    labels(Settings(), 0, np.arange(1))
    first_call = time.process_time() - start
    start = time.process_time()
    labels(Settings(), 0, np.arange(5000))
    seconds = time.process_time() - start
    print(f"labels alone: {5000 / seconds:.0f} images/s, after {first_call:.1f} s for the bins of distances")


if __name__ == "__main__":
    main()
