"""What does predict.py cost beside the features alone? Images/s of both in turn, and peak memory.

python -m benchmarks.predictions checkpoint=classifier.safetensors data.root=FOLDER
"""

import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import torch
from torch.utils.data import DataLoader

from ijepa.api.composing import composed
from ijepa.data.datamodule import EvalImages
from ijepa.data.files import Files
from ijepa.data.scan import scan_folder
from ijepa.data.workers import worker_count
from ijepa.evaluation.features import extract
from ijepa.evaluation.runtime import Runtime
from ijepa.interop.classifier_files import load_classifier
from ijepa.run import predictions

ROUNDS = 3


def main(overrides: Sequence[str]) -> None:
    """Prints a line per round, and the median."""
    ratios = []
    with composed("predict", overrides) as config, tempfile.TemporaryDirectory() as folder:
        classifier, runtime = load_classifier(config.checkpoint), Runtime(torch.device("cpu"))
        paths = scan_folder(Path(config.data.root)).paths
        for number in range(ROUNDS):
            begun = time.perf_counter()
            images = EvalImages(Files(paths, {}, classifier.encoder.spec.channels, None), classifier.transform,
                                classifier.encoder.spec.channels)  # fmt: skip
            loader = DataLoader(images, config.data.batch_size, num_workers=worker_count(config.data.workers, 1))
            extract(runtime.pooled(classifier.encoder), loader, runtime.device)
            features = time.perf_counter() - begun
            config.output = f"{folder}/{number}.csv"
            begun = time.perf_counter()
            predictions.predict(config)
            predicted = time.perf_counter() - begun
            ratios.append(predicted / features)
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
            print(f"features {len(paths) / features:.0f} images/s, predictions {len(paths) / predicted:.0f} images/s, "
                  f"time {ratios[-1]:.2f} times that of the features; peak memory so far {memory:.0f} MiB")  # fmt: skip
    print(f"median {median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main(sys.argv[1:])
