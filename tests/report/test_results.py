"""The table of results."""

from report_folders import make

from ijepa.report import reading, results


def test_best_is_the_least_error(tmp_path):
    [table, _] = results.tables(reading.read([make(tmp_path / "run")]))
    best = {metric: [cell.best for cell in cells] for _, metric, cells in table.rows}
    assert best["k-NN, k = 20"] == [True, False, False]
    assert best["Depth, RMSE"] == [True, False, False]
    assert best["Logistic regression, chosen penalty"] == [False, False, False]
