"""docs/extending.md: every section's files are written, and its command runs."""

import re
import shlex
import sys

import pytest
from helpers import ROOT, TINY, rows

TEXT = (ROOT / "docs" / "extending.md").read_text()
SECTIONS = {section.splitlines()[0]: section for section in TEXT.split("\n## ")[1:]}
SMALL = [*TINY[1:], "data.batch_size=16"]
EXTRA = {"A data source": []}
"""What the commands get beside SMALL; images are the digits unless said otherwise."""


def blocks(section, language):
    return re.findall(rf"^```{language}\n(.*?)^```", section, flags=re.S | re.M)


@pytest.mark.parametrize("title", [title for title in SECTIONS if blocks(SECTIONS[title], "sh")])
def test_a_section(title, tmp_path, monkeypatch, invoke):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    for language in ("python", "yaml"):
        for block in blocks(SECTIONS[title], language):
            name = re.match(r"# (my_\S+)\n", block)
            if name:
                path = tmp_path / name[1]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(block.partition("\n")[2])
    folder = "run"
    for line in "".join(blocks(SECTIONS[title], "sh")).splitlines():
        _, script, *arguments = shlex.split(line)
        if script == "train.py":
            given = dict(item.partition("=")[::2] for item in arguments)
            folder = given.get("run_dir", folder)
            small = [item for item in SMALL if item.partition("=")[0] not in given]
            arguments += [*small, *EXTRA.get(title, ["data=digits"]), f"run_dir={folder}"]
        code, _, err = invoke(script, *arguments)
        assert code == 0, err
    assert [row["step"] for row in rows(tmp_path / folder)] == ["1", "2", "3"]
    for name in set(sys.modules) - before:
        if name.startswith("my_"):
            del sys.modules[name]
