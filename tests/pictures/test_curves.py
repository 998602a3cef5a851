"""Learning curves from metrics.csv."""

import numpy as np
import pytest

from ijepa import pictures
from ijepa.evaluation import pictures as evaluation_pictures
from ijepa.evaluation.specs import lookup

TABLE = """\
step,images,epoch,flops,seconds,train/loss,train/variance,lr,momentum,val/knn20,val/count/linear,val/colour/linear,\
health/rankme,health/knn,val/depth_rmse,new/thing,val/logistic_l2
1,8,0.1,1e12,1,3.0,nan,0.1,0.996,,,,,,,,
2,16,0.2,2e12,2,2.0,0.5,0.2,,0.25,0.5,0.75,7.5,0.5,,1,0.1
3,24,0.3,3e12,3,,0.25,0.3,0.998,,,,,,,,
4,32,0.4,4e12,4,1.0,inf,0.4,1.0,0.5,0.625,,12.5,0.75,2,2,0.2
"""


@pytest.fixture
def columns(tmp_path):
    (tmp_path / "metrics.csv").write_text(TABLE)
    return pictures.read(tmp_path / "metrics.csv")


def panels(figure):
    """By title, its lines: points by label."""
    seen = [axes for axes in figure.axes if axes.get_visible()]
    return {axes.get_title(): {line.get_label(): line.get_xydata().tolist() for line in axes.lines} for axes in seen}


def test_empty_cells_become_nan(columns):
    assert np.array_equal(columns["val/knn20"], [np.nan, 0.25, np.nan, 0.5], equal_nan=True)
    assert np.array_equal(columns["step"], [1, 2, 3, 4])


def test_a_small_multiple_per_quantity_without_its_gaps(columns):
    found = panels(pictures.curves(columns, lookup))
    assert list(found) == ["Loss", "Variance term", "k-NN, %", "Linear probe, %", "k-NN along the run, %", "RankMe",
                           "Learning rate", "Momentum", "thing"]  # fmt: skip
    assert found["Loss"]["Loss"] == [[1, 3], [2, 2], [4, 1]]
    assert found["Variance term"]["Variance term"] == [[2, 0.5], [3, 0.25]]
    assert found["k-NN, %"] == {"k = 20": [[2, 25], [4, 50]]}
    assert found["Linear probe, %"] == {"count": [[2, 50], [4, 62.5]]}  # of one value no curve can be drawn
    assert found["RankMe"]["RankMe"] == [[2, 7.5], [4, 12.5]]


def test_label_sets_share_a_small_multiple(columns):
    columns["val/colour/linear"][3] = 0.8
    figure = pictures.curves(columns, lookup)
    assert set(panels(figure)["Linear probe, %"]) == {"count", "colour"}
    axes = next(axes for axes in figure.axes if axes.get_title() == "Linear probe, %")
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["count", "colour"]


def test_accuracy_against_compute(columns):
    figure = pictures.compute(columns, lookup)
    assert set(panels(figure)) == {"k-NN, %", "Linear probe, %", "k-NN along the run, %"}
    assert panels(figure)["k-NN, %"]["k = 20"] == [[2e12, 25], [4e12, 50]]
    assert {axes.get_xlabel() for axes in figure.axes if axes.get_visible()} == {"FLOPs"}
    assert pictures.compute({name: columns[name] for name in ("step", "flops", "train/loss")}, lookup) is None


@pytest.mark.parametrize("text", ["step,images,train/loss\n", "step,train/loss\n1,nan\n", "step,flops\n1,\n2,3\n"])
def test_nothing_to_draw_is_no_error(tmp_path, text):
    (tmp_path / "metrics.csv").write_text(text)
    columns = pictures.read(tmp_path / "metrics.csv")
    pictures.write(pictures.curves(columns, lookup), tmp_path / "curves.png")
    assert pictures.compute(columns, lookup) is None


def test_curves_of_a_broken_file_are_left_out_with_a_line(tmp_path, capsys):
    file = tmp_path / "metrics.csv"
    file.write_text("step,flops\n1\n2,3\n")
    assert evaluation_pictures.curves(file) == {}
    assert capsys.readouterr().out == f"curves   left out: {file}: line 2 has 1 cells, the first line 2\n"
