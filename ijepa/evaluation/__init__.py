"""Evaluation of frozen features: features.py and one file per task."""
