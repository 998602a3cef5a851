"""Measurements: one file per question; each prints a table and its command, or draws a picture of docs/."""
