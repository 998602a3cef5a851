"""`python -m ijepa.report`: what stands on the page, what cannot get into it."""

import base64
import html
import io
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import yaml
from helpers import ROOT
from PIL import Image

from ijepa.report import curves, page, reading, results, settings, text
from ijepa.report import pictures as report_pictures
from ijepa.report.__main__ import main

EVIL = "</script><script>fail('x')</script><!-- \u2028 \"'&"
CONFIG = {
    "defaults": ["_self_"], "run_dir": "somewhere", "resume": None, "seed": 0, "model": {"width": 24, "depth": 2},
    "data": {"source": "folder", "root": "/images", "image_size": [16, 24], "batch_size": 8},
    "schedule": {"epochs": 2.0, "max_steps": 40}, "optimizer": {"lr": 0.001}, "task": {"knn": {"headline": 20}},
}  # fmt: skip
HEALTH = (
    "rankme",
    "lidar",
    "std",
    "predictions_std",
    "cosine",
    "gradient_norm",
    "encoder_distance",
    "knn",
    "unheard_of",
)


def png(width=8, height=6, shade=120):
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (shade, 80, 160)).save(buffer, "PNG")
    return buffer.getvalue()


def write(path, contents):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(contents if isinstance(contents, bytes) else contents.encode())


def metrics(steps=40, label_set=None):
    names = ["step", "images", "epoch", "flops", "seconds", "train/loss", "lr"]
    prefix = f"{label_set}/" if label_set else ""
    names += [f"val/{prefix}knn20", f"val/{prefix}logistic_l2", *(f"health/{prefix}{name}" for name in HEALTH)]
    names.append("health/verdict")
    quoted = ",".join('"' + name.replace('"', '""') + '"' for name in names)
    lines = [quoted]
    for step in range(1, steps + 1):
        row = [str(step), str(step * 8), f"{step / 20}", f"{step * 1e9:g}", f"{step / 10}", f"{2 / step:.4f}", "1e-3"]
        row += ["0.5", "1e-06"] if step % 20 == 0 else ["", ""]
        row += ["nan" if step == 20 else f"{step / 7:.3f}"] * len(HEALTH) if step % 10 == 0 else [""] * len(HEALTH)
        row.append("collapsing (complete)" if step % 10 == 0 else "")
        lines.append(",".join(row))
    return "\n".join(lines) + "\n"


def make(folder, steps=40, total=40, verdict="healthy", evil="", **config):
    """A run's folder as train.py and evaluate.py leave it; ``evil`` in everything that has a name."""
    changed = {**CONFIG, **config, "run_dir": str(folder)}
    write(folder / "config.yaml", yaml.safe_dump(changed))
    write(folder / "metrics.csv", metrics(steps, evil or None))
    found = {f"{evil}/knn20" if evil else "knn20": 0.5, "depth_rmse": 0.31, "logistic_l2": 1e-6}
    rows = {"target encoder": found, "random init": dict.fromkeys(found, 0.4), "raw pixels": {}}
    if steps == total:
        write(folder / "summary.json", json.dumps({"steps": steps, "loss": 0.05, "results": rows, "unreadable": []}))
    intervals = {"target encoder": {name: [0.41, 0.62] for name in found}}
    written = {"config": {}, "images": {"train": 90, "val": 1234}, "results": rows, "intervals": intervals}
    write(folder / "evaluation" / "knn" / "metrics.json", json.dumps(written))
    write(folder / "evaluation" / "knn" / "neighbours.png", png(shade=40))
    verdicts = [
        {"step": 10, "verdict": "warming up", "kind": None, "evidence": ["early"], "remedies": []},
        {"step": 40, "verdict": verdict, "kind": evil or None, "evidence": [f"rank 12 {evil}"],
         "remedies": [f"lr {evil}"]},
    ]  # fmt: skip
    write(folder / "health.json", json.dumps({"verdicts": verdicts}))
    write(folder / "pictures" / "masks.png", png())
    for step in (10, 20, 40):
        write(folder / "pictures" / "predictions" / f"step-{step:06}.png", png(shade=step))
    return folder


def report(*arguments):
    out = arguments[-1]
    assert main([*map(str, arguments[:-1]), "--out", str(out)]) == 0
    return out.read_text(encoding="utf-8")


def shown(source):
    """The text of a page, without styles and scripts."""
    bare = re.sub(r"<(script|style)\b.*?</\1>", "", source, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", bare)).split())


def drawn(source):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', source, re.DOTALL)[1])


def refused(capsys, *arguments):
    assert main([str(argument) for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    return error


def assert_loads_nothing(source):
    markup = re.sub(r"<script\b.*?</script>", "", source, flags=re.DOTALL)
    for address in re.findall(r"\b(?:src|href|srcset|action|poster|data)\s*=\s*[\"']([^\"']*)", markup):
        assert address.startswith(("data:", "#")), address
    styles = "".join(re.findall(r"<style>(.*?)</style>", source, re.DOTALL))
    assert "@import" not in styles
    assert "url(" not in styles
    scripts = "".join(page.ASSETS.joinpath(name).read_text() for name in page.SCRIPTS)
    assert not re.search(
        r"\bfetch\(|XMLHttpRequest|\bimport\(|innerHTML|insertAdjacentHTML|document\.write|\beval\(", scripts
    )
    assert "default-src 'none'" in source


# --- one run


def test_a_finished_run(tmp_path, capsys):
    folder = make(tmp_path / "first")
    assert main([str(folder)]) == 0
    out = folder / "report.html"
    assert capsys.readouterr().out == f"written  {out} ({text.size(out.stat().st_size)})\n"
    source = out.read_text()
    words = shown(source)
    for part in ("first", str(folder), "finished, 40 steps", "healthy", "after step 40", "rank 12", "RankMe", "LiDAR",
                 "320", "4 × 10¹⁰ FLOPs", "k-NN, k = 20 50.0 %", "random init 40.0", "unheard of",
                 "on 1,234 validation images", "41.0–62.0", "Depth, RMSE 0.310",
                 "masks", "predictions", "evaluation/knn/neighbours",
                 "Configuration", "image_size [16, 24]", "lr 0.001"):  # fmt: skip
        assert part in words, part
    assert source.count("data:image/png;base64,") == 5
    assert base64.b64encode(png(shade=40)).decode() in source
    assert 'data-steps="10 20 40"' in source
    assert_loads_nothing(source)


def test_what_is_drawn(tmp_path):
    [run] = drawn(report(make(tmp_path / "run"), tmp_path / "out.html"))["runs"]
    assert run["axes"]["step"] == list(range(1, 41))
    assert run["axes"]["images"][-1] == 320
    assert run["series"]["health/rankme"] == {"at": [9, 19, 29, 39], "values": [1.429, None, 4.286, 5.714]}
    assert [verdict["verdict"] for verdict in run["verdicts"]] == ["warming up", "healthy"]


def test_a_long_run_keeps_its_extremes():
    values = [float(np.sin(i / 50)) for i in range(100_000)]
    values[40_321], values[77_777] = 9.0, float("nan")
    kept = curves._thinned(values)
    assert len(kept) < 2 * curves.POINTS
    assert {0, 40_321, 77_777, 99_999} <= set(kept)


def test_a_run_that_is_not_finished(tmp_path):
    folder = make(tmp_path / "run", steps=30)
    for path in ("health.json", "evaluation/knn/metrics.json"):
        (folder / path).unlink()
    with (folder / "metrics.csv").open("a") as file:
        file.write("31,248,1.5")  # being written
    words = shown(report(folder, tmp_path / "out.html"))
    assert "in progress or stopped: step 30 of 40" in words
    assert "k-NN, k = 20 50.0 %" in words  # the last one of metrics.csv
    assert "Verdicts" not in words


def test_the_length_of_a_run_in_epochs(tmp_path):
    folder = make(tmp_path / "run", steps=30, schedule={"epochs": 3.0, "max_steps": None})
    assert reading.read([folder])[0].total == 60


def test_what_resumes_have_changed(tmp_path):
    folder = make(tmp_path / "run")
    for number, lr in (("000010", 0.5), ("000020", 0.25)):
        write(folder / f"config-{number}.yaml", yaml.safe_dump({**CONFIG, "optimizer": {"lr": lr}}))
    words = shown(report(folder, tmp_path / "out.html"))
    assert "Resumed after step 10: optimizer.lr 0.001 → 0.5" in words
    assert "Resumed after step 20: optimizer.lr 0.5 → 0.25" in words
    assert "lr 0.25" in words


def test_a_real_run(finished, tmp_path):
    source = report(finished[0], tmp_path / "out.html")
    words = shown(source)
    for part in (
        "finished, 3 steps",
        "target encoder",
        "raw pixels",
        "masks",
        "features",
        "Learning rate",
        "Throughput",
    ):
        assert part in words
    assert_loads_nothing(source)


def test_as_a_command(tmp_path):
    folder = make(tmp_path / "run")
    done = subprocess.run([sys.executable, "-m", "ijepa.report", str(folder)], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert (folder / "report.html").exists()


# --- several


def test_several_runs(tmp_path, monkeypatch):
    one, two = make(tmp_path / "one"), make(tmp_path / "two", verdict="collapsing", optimizer={"lr": 0.5})
    monkeypatch.chdir(tmp_path)
    assert main([str(one), str(two), str(one) + "/."]) == 0
    source = (tmp_path / "report.html").read_text()
    words = shown(source)
    assert "2 runs side by side" in words
    assert "Differences between configurations key one two optimizer.lr 0.001 0.5 " in words
    assert "run_dir" not in words
    assert "collapsing" in words
    assert [run["name"] for run in drawn(source)["runs"]] == ["one", "two"]
    assert "random init all runs" in words  # both have the same
    assert "target encoder one target encoder two" in words.replace("  ", " ")


def test_names_tell_runs_apart(tmp_path):
    folders = [make(tmp_path / parent / "run") for parent in ("a", "b")] + [make(tmp_path / "other")]
    assert [run.name for run in reading.read(folders)] == ["a/run", "b/run", "other"]


def test_differences():
    one = {"a": 1, "b": {"c": [1, 2], "d": None}, "run_dir": "x"}
    two = {"a": 1, "b": {"c": [1, 3], "d": {"e": True}}, "run_dir": "y"}
    assert settings.differences([one, two]) == [("b.c", ["[1,2]", "[1,3]"]), ("b.d.e", [None, "true"])]
    assert settings.differences([one, one]) == []


def test_more_runs_than_colours(tmp_path):
    folders = [make(tmp_path / f"run-{number:02}", seed=number) for number in range(11)]
    words = shown(report(*folders, tmp_path / "out.html"))
    assert "11 runs side by side" in words
    assert "seed 0 1 2 3 4 5 6 7 8 9 10" in words


def test_best_is_the_least_error(tmp_path):
    [table, _] = results.tables(reading.read([make(tmp_path / "run")]))
    best = {metric: [cell.best for cell in cells] for _, metric, cells in table.rows}
    assert best["k-NN, k = 20"] == [True, False, False]
    assert best["Depth, RMSE"] == [True, False, False]
    assert best["Logistic regression, chosen penalty"] == [False, False, False]


# --- names


def test_names_are_escaped(tmp_path):
    evil = EVIL.replace("/", "|")  # as far as a file's name goes
    folder = make(tmp_path / f"{evil}\nrun", evil=EVIL, data={**CONFIG["data"], "root": EVIL}, **{EVIL: {EVIL: EVIL}})
    write(folder / "pictures" / f"{evil}.png", png())
    write(folder / "evaluation" / evil / "metrics.json", b"{broken")
    other = make(tmp_path / "other", evil="'\"><img src=x onerror=fail()>")
    source = report(folder, other, "--title", EVIL, tmp_path / "out.html")
    assert source.count("<script") == source.count("</script>") == 2
    assert "<!--" not in source
    assert not re.search(r"<img(?! src=\"data:image/png;base64,| alt=\"\">)", source)
    assert "\u2028" not in source
    words = shown(source)
    assert EVIL.replace("\u2028", "\\u2028") in words
    assert f"{evil}\\nrun".replace("\u2028", "\\u2028") in words
    assert drawn(source)["runs"][0]["verdicts"][1]["kind"] == EVIL
    assert_loads_nothing(source)


def test_names_that_are_no_utf8(tmp_path, capsys):
    name = os.fsdecode(b"caf\xe9")
    try:
        folder = make(tmp_path / name)
    except (OSError, UnicodeError):
        pytest.skip("the file system wants UTF-8")
    write(folder / "pictures" / f"{name}.png", png())
    assert main([str(folder)]) == 0
    assert "caf\\xe9" in capsys.readouterr().out
    assert shown((folder / "report.html").read_text(encoding="utf-8")).count("caf\\xe9") >= 3


def test_half_a_character(tmp_path):
    folder = make(tmp_path / "run")
    write(folder / "health.json", '{"verdicts": [{"step": 1, "verdict": "healthy", "evidence": ["\\ud800"]}]}')
    assert "\\ud800" in shown(report(folder, tmp_path / "out.html"))


# --- pictures


def test_wide_pictures_are_scaled_down(tmp_path):
    write(tmp_path / "pictures" / "wide.png", png(4800, 10))
    [[picture], notes] = report_pictures.pictures(tmp_path)
    assert (picture.width, picture.height, notes) == (2400, 5, [])


def test_many_pictures_are_thinned(tmp_path):
    for step in range(100):
        write(tmp_path / "pictures" / "often" / f"step-{step:06}.png", png())
    write(tmp_path / "pictures" / "once.png", png())
    found, [note] = report_pictures.pictures(tmp_path)
    steps = [picture.step for picture in found if picture.name == "often"]
    assert len(found) == 60
    assert (steps[0], steps[-1]) == (0, 99)
    assert max(np.diff(steps)) <= 2
    assert note == "41 of 101 pictures were left out; a page shows at most 60 per run"


def test_broken_parts_are_left_out(tmp_path, capsys):
    folder = make(tmp_path / "run")
    write(folder / "pictures" / "masks.png", png(200, 200)[:150])
    write(folder / "evaluation" / "knn" / "metrics.json", '{"results": [')
    write(folder / "health.json", '{"verdicts": [{}]}')
    words = shown(report(folder, tmp_path / "out.html"))
    printed = capsys.readouterr().out
    for name in (
        "pictures/masks.png is not a valid picture",
        "evaluation/knn/metrics.json is corrupt",
        "health.json is corrupt",
    ):
        assert name in words
        assert name in printed


# --- mistakes


def test_mistakes(tmp_path, capsys):
    folder = make(tmp_path / "run")
    assert "nowhere: no such folder" in refused(capsys, tmp_path / "nowhere")
    assert "config.yaml is missing" in refused(capsys, tmp_path)
    assert "is a file; give a run's folder" in refused(capsys, folder / "config.yaml")
    assert "should end in .html" in refused(capsys, folder, "--out", folder / "metrics.csv")
    assert "is a folder" in refused(capsys, folder, "--out", tmp_path)
    assert "RUN_DIR" in refused(capsys)
    assert "--help" in refused(capsys, folder, "--nonsense")
    line = refused(capsys, tmp_path / "two\nlines")
    assert "two\\nlines" in line


@pytest.mark.parametrize(
    ("name", "contents"),
    [
        ("config.yaml", "a: [1"),
        ("config.yaml", "a: 1\n"),
        ("config.yaml", b"\xff\xfe\x00"),
        ("config-000010.yaml", ": :"),
        ("metrics.csv", ""),
        ("metrics.csv", b"\x89PNG\r\n\x00\xff\n"),
        ("metrics.csv", "loss\n1\n"),
        ("metrics.csv", "step,step\n1,2\n"),
        ("metrics.csv", "step,loss\n1,2\n2\n"),
        ("metrics.csv", "step,loss\n1,two\n"),
        ("metrics.csv", "step,loss\n,2\n"),
        ("summary.json", '{"steps": '),
        ("summary.json", "[]"),
        ("summary.json", b"\xff"),
    ],
)
def test_broken_files_are_named(name, contents, tmp_path, capsys):
    folder = make(tmp_path / "run")
    write(folder / name, contents)
    assert str(folder / name) in refused(capsys, folder)
    assert not (folder / "report.html").exists()


def test_the_page_is_whole_or_not_there(tmp_path, monkeypatch, capsys):
    folder = make(tmp_path / "run")
    write(folder / "report.html", "before")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    assert "No space left on device" in refused(capsys, folder)
    assert (folder / "report.html").read_text() == "before"
    assert not list(folder.glob(".report.html*"))


# --- in words


def test_numbers():
    given = [0.43336, 19200.0, 3.748e12, 1e-6, -0.5, None, float("nan"), 13.3518, 0.0]
    assert [text.number(value) for value in given] == [
        "0.433", "19,200", "3.75 × 10¹²", "10⁻⁶", "−0.500", "–", "not finite", "13.4", "0",
    ]  # fmt: skip
    seconds = [4.21, 33.7, 725, 12000, 190000]
    assert [text.duration(value) for value in seconds] == ["4.2 s", "34 s", "12 min 5 s", "3 h 20 min", "2 d 4 h"]
