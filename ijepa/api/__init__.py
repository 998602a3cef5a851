"""From Python: configurations, datamodule and module for a Trainer of one's own; the commands as functions."""
