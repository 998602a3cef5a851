"""`python -m ijepa.report`: what stands on the page, what cannot get into it."""

import base64
import os
import re
import subprocess
import sys

import pytest
import yaml
from helpers import ROOT
from report_folders import CONFIG, EVIL, drawn, make, png, report, shown, write

from ijepa.report import page, text
from ijepa.report.command import main


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


@pytest.mark.slow
def test_as_a_command(tmp_path):
    folder = make(tmp_path / "run")
    done = subprocess.run([sys.executable, "-m", "ijepa.report", str(folder)], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert (folder / "report.html").exists()


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


def test_more_runs_than_colours(tmp_path):
    folders = [make(tmp_path / f"run-{number:02}", seed=number) for number in range(11)]
    words = shown(report(*folders, tmp_path / "out.html"))
    assert "11 runs side by side" in words
    assert "seed 0 1 2 3 4 5 6 7 8 9 10" in words


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
