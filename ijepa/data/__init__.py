"""From images on disk to batches with their masks."""
