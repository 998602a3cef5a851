"""The life of a run: build, start, resume, finalize; and evaluations of its checkpoints."""
