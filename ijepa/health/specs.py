"""The measures of a run's health; in metrics.csv after ``health/``, the probes also after a label set."""

from ijepa.training.specs import NOISE_LEVELS
from ijepa.util.metric_spec import MetricSpec

RANK = (
    MetricSpec("rankme", "RankMe", "", "higher", "effective rank of the target encoder's features, at most D"),
    MetricSpec("effective_rank", "Effective rank", "", "higher", "of the centred features: how many dimensions vary"),
    MetricSpec("alpha_req", "\u03b1-ReQ", "", "lower", "decay of the features' spectrum; 1 is best, more is steeper"),
    MetricSpec("lidar", "LiDAR", "", "higher", "rank of what differs between images but not between an image's crops"),
)  # fmt: skip
SPREAD = (
    MetricSpec("std", "Spread of features", "", None, "standard deviation over all tokens"),
    MetricSpec("std_across", "Spread across images", "", None, "standard deviation over images at each position"),
    MetricSpec("share", "Share across images", "%", None, "of the features' variance; the rest is between positions"),
    MetricSpec("norm", "Length of features", "", None, "mean norm of a token"),
    MetricSpec("relative", "Relative spread", "", None, "std / root mean square of tokens; 0: all equal"),
)
PREDICTIONS = (
    MetricSpec("predictions_std", "Spread of predictions", "", None, "standard deviation over all tokens"),
    MetricSpec("predictions_std_across", "Predictions across images", "", None, "standard deviation at each position"),
    MetricSpec("predictions_share", "Predictions, share across images", "%", None, "of their variance"),
    MetricSpec("predictions_norm", "Length of predictions", "", None, "mean norm of a token"),
    MetricSpec("predictions_relative", "Relative spread of predictions", "", None, "std / root mean square"),
    MetricSpec("cosine", "Cosine", "", None, "of predictions and targets"),
    MetricSpec("correlation", "Correlation", "", "higher", "of predictions and targets over images; 0: unrelated"),
    MetricSpec("context_gain", "Context gain", "", "higher", "1 - loss / loss with another image's context; 0: unused"),
    MetricSpec("cosine_gap", "Cosine gap", "", "higher", "cosine to own targets minus cosine to other images'"),
    MetricSpec("position_explained", "Explained by position", "%", "lower", "share of the targets' variance"),
)  # fmt: skip
OPTIMISATION = (
    MetricSpec("gradient_norm", "Gradient norm", "", "lower"),
    MetricSpec("encoder_distance", "Distance of the encoders", "", None, "context encoder to target encoder, relative"),
)
PROBES = (
    MetricSpec("knn", "k-NN along the run", "%", "higher", "held-out images, leave-one-out"),
    MetricSpec("linear", "Ridge classifier along the run", "%", "higher", "held-out images, leave-one-out"),
)
BY_NOISE = {level: f"noise_{100 * level:.0f}" for level in NOISE_LEVELS}
"""Names of a decoder's losses, by noise level."""
DECODER = (
    *(MetricSpec(name, f"Loss at {100 * level:.0f} % noise", "", "lower") for level, name in BY_NOISE.items()),
    MetricSpec("gain_over_another", "Gain over another image's representation", "", "higher",
               "1 - loss / loss with another image's representation; 0: unused"),
    MetricSpec("gain_over_none", "Gain over no representation", "", "higher", "1 - loss / loss without"),
)  # fmt: skip
ENCODER_GROUPS = {
    "Rank": RANK,
    "Spread of the target encoder's features": SPREAD,
    "Predictions": PREDICTIONS,
    "Optimisation": OPTIMISATION,
    "Accuracy of probes along the run": PROBES,
}
DECODER_GROUPS = {"Decoder": DECODER, "Optimisation": OPTIMISATION[:1]}
GROUPS = {**ENCODER_GROUPS, **DECODER_GROUPS, "Optimisation": OPTIMISATION}
"""All measures, by heading in reports."""
MEASURES = tuple(spec for group in GROUPS.values() for spec in group)
