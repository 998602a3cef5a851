"""Metrics that training logs: the loss and its terms, the schedule, throughput and totals."""

from ijepa.util.metric_spec import MetricSpec

LOSS = (
    MetricSpec("train/loss", "Loss", "", "lower", "what is minimised, on training images"),
    MetricSpec("train/distance", "Prediction error", "", "lower", "distance of predictions to their targets"),
    MetricSpec("train/pixels", "Pixel error", "", "lower", "distance of predicted to true pixels, beside features"),
    MetricSpec("train/variance", "Variance term", "", "lower", "shortfall of each dimension's standard deviation"),
    MetricSpec("train/covariance", "Covariance term", "", "lower", "redundancy between dimensions"),
)
"""The terms of the built-in objective; terms of the user's are ``train/NAME``, and lower is better."""
SCHEDULE = (
    MetricSpec("lr", "Learning rate", "", None),
    MetricSpec("weight_decay", "Weight decay", "", None),
    MetricSpec("momentum", "Momentum", "", None, "of the target encoder's moving average (EMA)"),
    MetricSpec("images_per_second", "Throughput", "images/s", "higher", "training images"),
)
TOTALS = (
    MetricSpec("loss", "Loss", "", "lower", "at the end of training"),
    MetricSpec("images", "Images", "", "lower", "training images seen"),
    MetricSpec("flops", "FLOPs", "", "lower"),
    MetricSpec("seconds", "Training time", "s", "lower"),
)
"""Totals of a run, in summary.json."""
SKIPPED = MetricSpec("skipped_steps", "Skipped steps", "", "lower", "whose loss or gradients were not finite")
PROGRESS = (MetricSpec("epoch", "Epoch", "", None), MetricSpec("step", "Step", "", None))
NOISE_LEVELS = (0.1, 0.3, 0.5, 0.7, 0.9)
"""At which health checks measure a decoder's loss; 0: no noise, 1: nothing else."""
