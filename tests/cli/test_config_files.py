"""Configuration files in --config-dir: what Hydra may read."""

import pytest

from ijepa.run import runs

DEEP = "[" * 3000 + "]" * 3000
BOMB = "\n".join(["a0: &a0 [x, x, x, x, x, x, x, x, x]",
                  *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9))])  # fmt: skip


@pytest.fixture
def own(tmp_path):
    """Writes data=mine, in a folder for --config-dir."""

    def write(text):
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "data" / "mine.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
        return tmp_path

    return write


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (BOMB, "more than 20000 values"),
        (f"a: {DEEP}", "nested more than 50 levels deep"),
        ("a: [", "not valid YAML, line 1: "),
        ("mean: 1\nmean: 2", "not valid YAML, line 2: found duplicate key mean"),
        ("a: !!python/object:os.system x", "not valid YAML, line 1: "),
        (f"a: {'1' * 5000}", "Exceeds the limit"),
        (b"\xff\xfe\0", "not valid YAML: not UTF-8"),
        ("- 1", "not a configuration"),
    ],
)
def test_an_option_that_cannot_be_read_is_one_line(own, invoke, text, problem):
    folder = own(text)
    code, _, error = invoke("train.py", "--config-dir", folder, "data=mine")
    assert code == 2
    assert error.startswith(f"error: {folder / 'data' / 'mine.yaml'}: {problem}")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "command", [["train.py", "--help"], ["evaluate.py"], ["statistics"], ["train.py", "-m", "seed=1,2"]]
)
def test_every_command_checks_them(own, invoke, command):
    code, _, error = invoke(command[0], "--config-dir", own(BOMB), *command[1:], "data=mine")
    assert code == 2
    assert error.endswith("mine.yaml: more than 20000 values, with those that its aliases repeat\n")


@pytest.mark.parametrize("command", ["train.py", "evaluate.py", "predict.py"])
def test_the_file_of_config_name_is_checked(own, invoke, command):
    code, _, error = invoke(command, "--config-dir", own(f"logger: {DEEP}") / "data", "--config-name", "mine")
    assert code == 2
    assert error.endswith("mine.yaml: nested more than 50 levels deep\n")


def test_a_file_of_one_s_own_may_have_aliases(own, invoke):
    folder = own("defaults: [folder]\nmean: &grey [0.5, 0.5, 0.5]\nstd: *grey\n")
    code, output, error = invoke("train.py", "--config-dir", folder, "data=mine", "--help")
    assert code == 0, error
    assert "data.std=[0.5,0.5,0.5]" in output


def test_nesting_without_limit_is_one_line(invoke, monkeypatch):
    def nested(composed):
        raise RecursionError

    monkeypatch.setattr(runs, "train", nested)
    code, _, error = invoke("train.py", "data=digits")
    assert (code, error.count("\n")) == (2, 1)
    assert "nested too deeply" in error
