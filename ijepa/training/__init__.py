"""The LightningModule of pretraining, its objective, optimiser and schedules, and its FLOPs."""
