"""Predict: ``python predict.py checkpoint=RUN_DIR|classifier.safetensors data.root=IMAGES``; ``--help`` explains."""

from ijepa.cli import predict

if __name__ == "__main__":
    predict.run()
