"""The LightningModule of pretraining, what it minimises, and its schedules."""
