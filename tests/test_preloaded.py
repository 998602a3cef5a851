"""A process that tests fork is as one of its own."""

import json
import os
import signal
import subprocess
import sys

import preloaded
import pytest

pytestmark = pytest.mark.integration

SCRIPT = """
import atexit, json, os, sys, threading, time
state = dict(arguments=sys.argv, directory=os.getcwd(), path=sys.path[0], name=__name__, value=os.environ.get("VALUE"),
             read=sys.stdin.read(), again=os.path.exists(sys.executable))
atexit.register(print, "at exit")
threading.Timer(0.2, print, ["a thread"]).start()
print(json.dumps(state), flush=True)
if len(sys.argv) > 1 and sys.argv[1] == "wait":
    time.sleep(60)
sys.exit(sys.argv[1] if len(sys.argv) > 1 and sys.argv[1] == "words" else len(sys.argv))
"""


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "code" / "script.py"
    path.parent.mkdir()
    path.write_text(SCRIPT)
    return path


@pytest.mark.parametrize("arguments", [[], ["one", "two"], ["words"]])
def test_it_is_as_a_process_of_its_own(script, tmp_path, arguments):
    found = [
        subprocess.run([python, script, *arguments], cwd=tmp_path, env={**os.environ, "VALUE": "7"}, input="text",
                       capture_output=True, text=True)
        for python in (sys.executable, preloaded.python())
    ]  # fmt: skip
    one, other = ((done.returncode, done.stdout, done.stderr) for done in found)
    assert one == other
    assert json.loads(other[1].splitlines()[0])["value"] == "7"
    assert other[1].splitlines()[1:] == ["a thread", "at exit"]


def test_an_error_is_shown(tmp_path):
    (tmp_path / "wrong.py").write_text("assert 1 == 2, 'no'")
    done = subprocess.run([preloaded.python(), tmp_path / "wrong.py"], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.endswith("AssertionError: no\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGKILL])
def test_a_signal_ends_it(script, number):
    process = subprocess.Popen([preloaded.python(), script, "wait"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               text=True)  # fmt: skip
    assert process.stdout.readline()
    process.send_signal(number)
    assert process.stdout.read() in ("", "a thread\n")  # closed: it has ended
    assert process.wait(timeout=10) == -number


def test_other_code_gets_a_python_of_its_own():
    code = "import sys; print(sys.executable, 'torch' in sys.modules)"
    done = subprocess.run([preloaded.python(), "-c", code], capture_output=True, text=True)
    assert done.stdout == f"{sys.executable} False\n"
