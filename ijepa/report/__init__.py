"""Reports of runs and sweeps: one self-contained HTML page with config, health, curves, results and pictures."""
