"""Sweeps: their folders, what they compare runs by, and their tables."""
