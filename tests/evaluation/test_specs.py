"""What metrics are called, their units, and which direction is better, by the names of columns and results."""

import subprocess
import sys

import pytest

from ijepa.evaluation import specs
from ijepa.sweeps import metric
from ijepa.util.metric_spec import MetricSpec, from_plain


@pytest.mark.parametrize(
    ("column", "title", "unit", "better"),
    [
        ("val/count/knn20", "k-NN, k = 20", "%", "higher"),
        ("knn200", "k-NN, k = 200", "%", "higher"),
        ("count/distance", "Distance", "%", "higher"),
        ("train/distance", "Prediction error", "", "lower"),
        ("train/pixels", "Pixel error", "", "lower"),
        ("val/depth_rmse", "Depth, RMSE", "", "lower"),
        ("class/lowshot_1pct", "Few labels: 1 %", "%", "higher"),
        ("lowshot_finetune_5shot", "Fine-tuning, few labels: 5 per class", "%", "higher"),
        ("lowshot_my_list", "Few labels: my_list", "%", "higher"),
        ("retrieval7", "Retrieval, 7 neighbours", "%", "higher"),
        ("logistic_l2", "Logistic regression, chosen penalty", "", None),
        ("health/linear", "Ridge classifier along the run", "%", "higher"),
        ("health/colour/linear", "Ridge classifier along the run", "%", "higher"),
        ("health/share", "Share across images", "%", None),
        ("health/alpha_req", "\u03b1-ReQ", "", "lower"),
        ("lr", "Learning rate", "", None),
        ("seconds", "Training time", "s", "lower"),
        ("headline", "Mean headline", "%", "higher"),
        ("train/centring_term", "centring term", "", "lower"),
        ("health/new_measure", "new measure", "", None),
        ("val/unheard_of", "unheard of", "", "higher"),
    ],
)
def test_every_name_has_a_spec(column, title, unit, better):
    spec = specs.lookup(column)
    assert (spec.title, spec.unit, spec.better) == (title, unit, better)


def test_files_describe_what_no_name_tells():
    error = MetricSpec("angle_error", "Angle", "°", "lower")
    written = specs.plain_custom_specs([specs.KNN.instance(k=5), specs.LOGISTIC_L2, specs.HEADLINE, error])
    assert list(written) == ["angle_error"]
    known = specs.parse_custom_specs(written, None, {"broken": 3}, {"broken": {"name": 1}}, "text")
    assert known == {"angle_error": error}
    assert specs.lookup("val/count/angle_error", known) == error
    assert metric.direction("count/angle_error", known) == "minimize"
    assert metric.direction("count/angle_error") == "maximize"


@pytest.mark.parametrize("wrong", [{"better": "more"}, {"title": 3}, {"colour": "red"}])
def test_a_broken_description_is_refused(wrong):
    with pytest.raises((TypeError, ValueError)):
        from_plain({**MetricSpec("a", "A", "", None).plain(), **wrong})


def test_values_in_a_line_of_text():
    assert specs.LOGISTIC.format_value(0.4567) == "45.7 %"
    assert specs.DEPTH[1].format_value(0.31234) == "0.3123"
    assert specs.lookup("seconds").format_value(12) == "12 s"


@pytest.mark.integration
def test_titles_are_read_without_torch():
    """Reports and --help begin at once."""
    code = "import sys, ijepa.cli.metrics, ijepa.report.page; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
