"""Lightning callbacks of a pretraining run."""
