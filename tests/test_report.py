"""`python -m ijepa.report`: one page that holds everything, loads nothing, and believes no name."""

import json
import re
import shutil

import browser
import pytest
from omegaconf import OmegaConf
from PIL import Image

from ijepa.report.__main__ import main

EVIL = "</script><script>alert('&\"1')</script>"


def make(folder, lr=0.001, title="run", finished=True, verdict="healthy", label="count"):
    folder.mkdir(parents=True)
    config = {"seed": 0, "data": {"source": title, "batch_size": 8}, "optimizer": {"lr": lr}, "run_dir": str(folder),
              "schedule": {"max_steps": 40, "epochs": None}, "task": {"knn": {"headline": 20}}}  # fmt: skip
    OmegaConf.save(OmegaConf.create(config), folder / "config.yaml")
    columns = ["step", "images", "epoch", "flops", "seconds", "health/rankme", "health/verdict", "train/loss", "lr",
               f"val/{label}/knn20"]  # fmt: skip
    lines = [",".join(f'"{name}"'.replace("\"1'", '""1\'') for name in columns)]
    for step in range(0, 41, 10):
        accuracy = 0.25 + step / 100 if step % 20 == 0 else ""
        lines.append(
            f"{step},{step * 8},{step / 5},{step * 1e9},{step},{1 + step},{verdict},{1 / (1 + step)},{lr},{accuracy}"
        )
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n")
    told = [{"step": 0, "verdict": "warming up", "kind": None, "evidence": ["before training"], "remedies": []},
            {"step": 20, "verdict": verdict, "kind": None, "evidence": [f"seen by {title}"],
             "remedies": ["a lower learning rate"]}]  # fmt: skip
    (folder / "health.json").write_text(json.dumps({"verdicts": told, "seconds": 1.5}))
    if finished:
        results = {"target encoder": {f"{label}/knn20": 0.65}, "random init": {f"{label}/knn20": 0.30}}
        (folder / "summary.json").write_text(json.dumps({"steps": 40, "results": results}))
    for name in ("masks.png", "features/step-000000.png", "features/step-000040.png"):
        (folder / "pictures" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (60, 40), "red").save(folder / "pictures" / name)
    return folder


def page(capsys, *arguments):
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture
def run(tmp_path):
    return make(tmp_path / "first")


def test_one_run(run, capsys):
    code, out, _ = page(capsys, run)
    assert code == 0
    assert f"written  {run / 'report.html'}" in out
    html = (run / "report.html").read_text()
    for part in ("first", "finished", "65.0", "random init 30.0", "seen by run", "a lower learning rate", "RankMe",
                 "optimizer", "masks", "features", 'data-steps="0 40"', "warming up"):  # fmt: skip
        assert part in html, part
    data = json.loads(re.search(r'id="data">(.*?)</script>', html)[1])
    series = data["runs"][0]["series"]
    assert series["train/loss"]["values"][0] == 1
    assert [data["runs"][0]["axes"]["step"][row] for row in series["val/count/knn20"]["at"]] == [0, 20, 40]
    assert "health/verdict" not in series


def test_it_loads_nothing(run, capsys):
    page(capsys, run)
    html = (run / "report.html").read_text()
    assert "default-src 'none'" in html
    sources = re.findall(r"""(?:src|href|action|url|@import)\s*[=(]\s*["']?([^"')\s>]+)""", html)
    assert {source for source in sources if not source.startswith(("data:", "#"))} <= {"image.src;", "image.src"}
    assert not re.search(r"https?://(?!www\.w3\.org/)", html)


def test_runs_side_by_side(tmp_path, capsys):
    folders = [make(tmp_path / "a" / "run", 0.001), make(tmp_path / "b" / "run", 0.1, verdict="diverging")]
    out = tmp_path / "both.html"
    assert page(capsys, *folders, folders[0], "--out", out)[0] == 0
    html = out.read_text()
    assert "a/run" in html
    assert "b/run" in html
    assert "2 runs side by side" in html
    differing = html[html.index("What differs") :]
    rows = re.findall(r'<th scope="row"><code>(.*?)</code>', differing[: differing.index("</table>")])
    assert rows == ["optimizer.lr"]
    assert html.count("diverging") >= 2


def test_names_are_escaped_everywhere(tmp_path, capsys):
    folder = make(tmp_path / "<b>&'", title=EVIL, label="<i>x", verdict="<u>odd")
    (folder / "pictures" / "<img onerror=alert(1)>.png").write_bytes((folder / "pictures" / "masks.png").read_bytes())
    out = tmp_path / "page.html"
    assert page(capsys, folder, make(tmp_path / "other"), "--out", out)[0] == 0
    html = out.read_text()
    assert html.count("<script") == 2  # data and code
    assert "alert(&#39;" in html or "alert(\\u" in html
    for raw in ("<b>&'", "<i>x", "<u>odd", "<img onerror"):
        assert raw not in html, raw


def test_a_run_under_way_and_odd_files(tmp_path, capsys):
    folder = make(tmp_path / "run", finished=False)
    (folder / "health.json").write_text("{")
    (folder / "pictures" / "broken.png").write_bytes(b"no png")
    (folder / "evaluation" / "knn").mkdir(parents=True)
    (folder / "evaluation" / "knn" / "metrics.json").write_text("[]")
    with (folder / "metrics.csv").open("a") as file:
        file.write("50,4")  # a line that is being written
    code, out, _ = page(capsys, folder)
    assert code == 0
    html = (folder / "report.html").read_text()
    assert "under way or stopped: step 40 of 40" in html
    for name in ("health.json", "broken.png", "evaluation/knn/metrics.json"):
        assert name in out
        assert name in html
    shutil.rmtree(folder / "pictures")
    (folder / "health.json").unlink()
    assert page(capsys, folder)[0] == 0


@pytest.mark.parametrize(
    ("harm", "line"),
    [
        (lambda f: shutil.rmtree(f), "no such folder"),
        (lambda f: (f / "config.yaml").unlink(), "config.yaml is missing"),
        (lambda f: (f / "metrics.csv").unlink(), "metrics.csv is missing"),
        (lambda f: (f / "metrics.csv").write_text("a,b\n1,2\n"), "no column is called step"),
        (lambda f: (f / "metrics.csv").write_text("step,b\n1,x\n"), "line 2: b is no number: x"),
        (lambda f: (f / "metrics.csv").write_bytes(b"\xff\xfe"), "no text"),
        (lambda f: (f / "config.yaml").write_text("a: [1"), "not the configuration of a run"),
        (lambda f: (f / "summary.json").write_text("{"), "no JSON"),
    ],
)
def test_mistakes_are_one_line(run, capsys, harm, line):
    harm(run)
    code, _, error = page(capsys, run, "--out", run.parent / "page.html")
    assert code == 2
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert line in error
    assert run.name in error
    assert not (run.parent / "page.html").exists()


def test_wrong_options(run, capsys, tmp_path):
    for arguments in ([], [run, "--out", tmp_path], [run, "--out", tmp_path / "page.pdf"], [run, "--nonsense"]):
        code, _, error = page(capsys, *arguments)
        assert code == 2
        assert error.count("\n") == 1


def test_a_real_run(finished, capsys, tmp_path):
    folder, _ = finished
    out = tmp_path / "page.html"
    assert page(capsys, folder, "--out", out)[0] == 0
    html = out.read_text()
    assert "finished, 3 steps" in html
    assert "Learning rate" in html
    assert "masks" in html


@pytest.mark.slow
@pytest.mark.skipif(browser.CHROMIUM is None, reason="no Chromium on this machine")
def test_in_a_browser(tmp_path, capsys):
    folders = [make(tmp_path / "one", 0.001), make(tmp_path / f"two {EVIL.replace('/', '')}", 0.1, title=EVIL)]
    pages = [tmp_path / "one.html", tmp_path / "two.html"]
    assert page(capsys, folders[0], "--out", pages[0])[0] == page(capsys, *folders, "--out", pages[1])[0] == 0
    with browser.Browser(tmp_path / "profile") as chromium:
        for file in pages:
            for width, dark in ((1400, False), (390, True)):
                chromium.size(width, dark=dark)
                chromium.open(file)
                assert chromium.run("document.documentElement.scrollWidth") <= width
                assert chromium.run("document.querySelectorAll('.chart svg path').length") > 0
                chromium.run("document.querySelector('.steps input').value = 0")
                chromium.run("document.querySelector('.steps input').dispatchEvent(new Event('input'))")
                assert (
                    chromium.run("document.querySelector('.shown[data-steps] .frame:not([hidden])').dataset.step")
                    == "0"
                )
                chromium.run("document.querySelector('.frame:not([hidden])').click()")
                assert chromium.run("document.getElementById('viewer').open")
                chromium.run("document.getElementById('viewer').close()")
                chromium.run("document.getElementById('filter').value = 'optimizer.lr'")
                chromium.run("document.getElementById('filter').dispatchEvent(new Event('input'))")
                assert chromium.run("document.querySelectorAll('.leaf:not([hidden])').length") in (1, 2)
                chromium.run("document.querySelector('#axis').value = 'flops'")
                chromium.run("document.querySelector('#axis').dispatchEvent(new Event('change'))")
        assert chromium.faults == []
        assert {request.partition(":")[0] for request in chromium.requests} <= {"file", "data"}
