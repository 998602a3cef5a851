"""Measurements: one file per question, each prints its table and the command that made it."""
