"""A report in headless Chromium: no errors, nothing that overflows, and what can be done on it."""

import json

import pytest
from browser import CHROMIUM, Browser
from report_folders import EVIL, drawn, make, png, report, write

from ijepa.sweeps import jobs

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    evil = make(folder / ("long-" * 30 + "name"), evil=EVIL, verdict="collapsing")
    write(evil / "pictures" / "wide.png", png(2300, 40))
    one, many = folder / "one.html", folder / "many.html"
    report(evil, one)
    report(evil, *(make(folder / f"run-{number}", seed=number, steps=30) for number in range(9)), many)
    return one, many


@pytest.mark.parametrize("width", [1400, 390])
@pytest.mark.parametrize("which", [0, 1])
def test_in_chromium(chromium, pages, which, width):
    chromium.faults.clear()
    chromium.requests.clear()
    chromium.size(width, dark=which == 1)
    chromium.open(pages[which])
    # Everything opened, and every curve drawn
    chromium.run("document.querySelectorAll('details').forEach(each => each.open = true)")
    chromium.run("new Promise(done => setTimeout(done, 200))")
    assert chromium.run("document.documentElement.scrollWidth") <= width
    beyond = """[...document.querySelectorAll('main *')].filter(each => !each.closest('.scroll, svg, .tip')
        && each.getClientRects().length && each.getBoundingClientRect().right > innerWidth + 1)
        .map(each => each.outerHTML)"""
    assert chromium.run(beyond) == []
    undrawn = "[...document.querySelectorAll('.chart')].filter(each => !each.querySelector('path.line')).length"
    assert chromium.run("document.querySelectorAll('.chart').length") > 5
    assert chromium.run(undrawn) == 0
    assert chromium.run("document.querySelectorAll('#strip .verdict-part').length") >= 2
    assert chromium.faults == []
    assert [address for address in chromium.requests if not address.startswith(("file:", "data:"))] == []


def test_what_can_be_done_in_chromium(chromium, pages):
    chromium.faults.clear()
    chromium.size(1400)
    chromium.open(pages[1])
    label = "document.querySelector('.chart svg').getAttribute('aria-label')"
    chromium.run("(axis.value = 'flops', axis.dispatchEvent(new Event('change')))")
    assert "against FLOPs" in chromium.run(label)
    [number] = [n for n, chart in enumerate(drawn(pages[1].read_text())["charts"]) if chart["column"] == "train/loss"]
    loss = f"document.querySelector('[data-chart=\"{number}\"]')"
    lines = f"{loss}.querySelectorAll('path.line').length"
    assert chromium.run(lines) == 10
    chromium.run("document.querySelector('.chip').click()")
    assert chromium.run(lines) == 9
    chromium.run(f"{loss}.querySelector('svg').dispatchEvent(new KeyboardEvent('keydown', {{key: 'ArrowLeft'}}))")
    assert chromium.run(f"{loss}.querySelector('.tip').textContent").startswith("FLOPs 3")
    chromium.run(f"{loss}.querySelector('.log').click()")
    slider = "document.querySelector('.shown[data-steps] input')"
    chromium.run(f"({slider}.value = 0, {slider}.dispatchEvent(new Event('input')))")
    visible = "[...document.querySelectorAll('.shown[data-steps] .frame:not([hidden])')].map(each => each.dataset.step)"
    assert set(chromium.run(visible)) == {"10"}
    chromium.run("document.querySelector('.frame:not([hidden])').click()")
    assert chromium.run("viewer.open && viewer.querySelector('img').naturalWidth > 0")
    chromium.run("viewer.close()")
    field = "document.getElementById('filter')"
    chromium.run(f"({field}.value = 'optimizer.lr', {field}.dispatchEvent(new Event('input')))")
    found = "[...document.querySelectorAll('.leaf:not([hidden])')].map(each => each.dataset.text)"
    assert set(chromium.run(found)) == {"optimizer.lr=0.001"}
    assert chromium.faults == []


def test_a_sweep_in_chromium(chromium, tmp_path):
    sweep = jobs.Sweep(tmp_path, ["seed=0,1", EVIL], ["masking", "optimizer.lr"], None)
    for number, masking in enumerate(("multiblock", "block", EVIL)):
        folder = make(tmp_path / f"job-{number}", seed=number, steps=30)
        summary = {"steps": 30, "loss": 0.5, "headline": 0.1 + 0.2 * number, "results": {EVIL: {EVIL: 0.5}}}
        (folder / "summary.json").write_text(json.dumps(summary))
        sweep.jobs.append(jobs.Job(folder, {"masking": masking, "optimizer.lr": f"{10.0**-number}"}))
    sweep.jobs.append(jobs.Job(tmp_path / "none", {"masking": "x", "optimizer.lr": "1"}, EVIL))
    sweep.write()
    report(tmp_path, tmp_path / "sweep.html")
    chromium.faults.clear()
    chromium.requests.clear()
    for width in (1400, 390):
        chromium.size(width)
        chromium.open(tmp_path / "sweep.html")
        chromium.run("new Promise(done => setTimeout(done, 200))")
        assert chromium.run("document.documentElement.scrollWidth") <= width
        assert chromium.run("document.querySelectorAll('circle.job').length") == 3
        assert chromium.run("document.querySelectorAll('polyline.job').length") == 3
    order = "[...document.querySelectorAll('tbody tr')].map(row => row.dataset.job).join('')"
    assert chromium.run(order) == "2103"  # the best first, what failed last
    chromium.run("document.querySelectorAll('th button')[1].click()")
    assert chromium.run(order) == "2103"  # by learning rate, least first; the failed one has none of the least
    chromium.run("document.querySelectorAll('th button')[1].click()")
    assert chromium.run(order) in ("0312", "3012")
    chromium.run("document.querySelector('tbody tr[data-job=\"1\"]').dispatchEvent(new PointerEvent('pointerenter'))")
    assert chromium.run("document.querySelectorAll('.picked').length") == 3  # row, point and line
    chromium.run("(up.value = '1', up.dispatchEvent(new Event('change')))")
    assert chromium.run("document.querySelectorAll('circle.job').length") == 3 + 1
    assert chromium.faults == []
    assert [address for address in chromium.requests if not address.startswith(("file:", "data:"))] == []
