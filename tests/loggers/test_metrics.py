"""metrics.csv."""

from helpers import rows

from ijepa.loggers import MetricsCSV


def test_metrics_csv_is_whole_at_every_moment(tmp_path):
    logger = MetricsCSV(tmp_path / "metrics.csv")
    logger.log_metrics({"a": 1.5}, step=1)
    logger.log_metrics({"a": 2}, step=2)
    logger.log_metrics({"b": 0.1 + 0.2}, step=2)
    logger.log_metrics({"a": 3, "b": float("nan")}, step=3)
    expected = [("1", "1.5", ""), ("2", "2", "0.3"), ("3", "3", "nan")]
    assert [tuple(row.values()) for row in rows(tmp_path)] == expected
    again = MetricsCSV(tmp_path / "metrics.csv")
    again.log_metrics({"b": 4}, step=4)
    assert [tuple(row.values()) for row in rows(tmp_path)] == [*expected, ("4", "", "4")]
