"""Evaluation of encoders: one file per task."""
