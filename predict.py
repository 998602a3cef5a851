"""Predict: ``python predict.py checkpoint=RUN_DIR|classifier.safetensors data.root=IMAGES``; ``--help`` explains."""

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C within the imports ends without a traceback

from ijepa.cli import predict  # noqa: E402

if __name__ == "__main__":
    predict.run()
