"""Sweeps: their records, the metric that jobs are compared by, and tables."""
