"""The documentation as a site, with the reference made from docstrings."""

import os
import re
import subprocess
import sys

import pytest
from helpers import ROOT

import ijepa

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site: a warning is an error."""
    folder = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    result = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, env=environment, check=False)
    assert result.returncode == 0, result.stderr
    assert "WARNING" not in result.stderr
    return folder


def test_every_page_is_in_the_navigation(site):
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")}
    navigation = set(re.findall(r": (\w+)\.md", (ROOT / "mkdocs.yml").read_text()))
    assert pages == navigation
    for page in pages - {"index"}:
        assert (site / page / "index.html").is_file()


def test_the_reference_has_every_public_name(site):
    page = (site / "reference" / "index.html").read_text()
    for name in ijepa.__all__:
        value = getattr(ijepa, name)
        assert f'id="{value.__module__}.{value.__qualname__}"' in page, name
    assert "Raises:" in page


def test_source_files_are_text_on_the_site(site):
    assert "(../ijepa/models/protocol.py)" in (ROOT / "docs" / "extending.md").read_text()
    page = (site / "extending" / "index.html").read_text()
    assert "<code>ijepa/models/protocol.py</code>" in page
    assert 'href="../../ijepa/' not in page
