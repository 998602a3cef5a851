"""Training runs: build, start, resume, finalize; and evaluations of checkpoints."""
