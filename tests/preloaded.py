"""Processes that need not import torch and Lightning, which take most of the time of a short command.

`python` is an executable that tests use in place of `sys.executable`. It asks a server, which has imported everything,
to fork a process that runs the script or module: arguments, environment, directory, standard streams, signals and exit
code are those of a new process. The processes that it starts in turn by `sys.executable`, such as those of other ranks,
are forked, too. Whatever is neither a script nor one of `MODULES` gets a Python of its own. Tests of what happens while
a command starts, and of Ctrl-C for a whole process group, use `sys.executable` itself.
"""

import array
import atexit
import contextlib
import faulthandler
import functools
import importlib
import io
import json
import os
import random
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from pathlib import Path

IMPORTED = ("ijepa.run.runs", "ijepa.run.evaluations", "ijepa.report.command", "sklearn.datasets", "matplotlib.pyplot",
            "torch.distributed.run", "wandb", "pandas")  # fmt: skip
MODULES = ("ijepa", "ijepa.report", "ijepa.interop", "ijepa.data.statistics", "torch.distributed.run",
           "submitit.core._submit")  # fmt: skip
"""Modules that run without a Python of their own, by ``-m``."""

HUNG = 270
"""Seconds after which a process prints where it is and ends: less than the timeout of `helpers.command`."""

LAUNCHER = """#!{python} -ISs
import array, json, os, signal, socket, sys
arguments = sys.argv[1:]
while arguments and arguments[0] in ("-u",):
    arguments.pop(0)
module = arguments[1] if arguments[:1] == ["-m"] and len(arguments) > 1 else None
if not (module in {modules} or (arguments and arguments[0].endswith(".py"))):
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
server.connect({address!r})
request = dict(arguments=arguments, directory=os.getcwd(), environment=dict(os.environ), python=sys.argv[0])
data = json.dumps(request).encode()
server.sendmsg([len(data).to_bytes(8, "big")], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))])
server.sendall(data)
pid = int.from_bytes(server.recv(8), "big")
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
    signal.signal(number, lambda number, frame: os.kill(pid, number))
status = os.waitstatus_to_exitcode(int.from_bytes(server.recv(8), "big"))
if status < 0:
    signal.signal(-status, signal.SIG_DFL)
    os.kill(os.getpid(), -status)
os._exit(status)
"""


@functools.cache
def python() -> str:
    """The path of the executable; starts the server, which ends with this process."""
    folder = Path(tempfile.mkdtemp(prefix="preloaded-"))
    address, launcher = folder / "socket", folder / "python"
    launcher.write_text(LAUNCHER.format(python=sys.executable, modules=MODULES, address=str(address)))
    launcher.chmod(0o755)
    server = subprocess.Popen([sys.executable, __file__, str(address)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert server.stdin is not None
    assert server.stdout is not None

    def end() -> None:
        server.stdin.close()
        server.wait()
        for path in (launcher, address, folder):
            path.rmdir() if path.is_dir() else path.unlink(missing_ok=True)

    atexit.register(end)
    assert server.stdout.readline() == b"ready\n"
    return str(launcher)


def serve(address: str) -> None:
    """Forks a process for each connection, until standard input is closed."""
    for name in IMPORTED:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(address)
    listener.listen(64)
    ended, wakeup = os.pipe()
    os.set_blocking(wakeup, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
    events = selectors.DefaultSelector()
    for source in (listener, ended, sys.stdin):
        events.register(source, selectors.EVENT_READ)
    clients: dict[int, socket.socket] = {}  # by process
    print("ready", flush=True)
    while True:
        for key, _ in events.select():
            if key.fileobj is sys.stdin:
                os._exit(0)
            elif key.fileobj == ended:
                os.read(ended, 1024)
                _report(clients, events)
            elif key.fileobj is listener:
                client, _ = listener.accept()
                request, streams = _receive(client)
                pid = os.fork()
                if pid == 0:
                    signal.set_wakeup_fd(-1)
                    for number in (signal.SIGCHLD, signal.SIGTERM):
                        signal.signal(number, signal.SIG_DFL)
                    for open_one in (listener, client, *clients.values()):
                        open_one.close()
                    events.close()
                    _become(request, streams)
                for stream in streams:
                    os.close(stream)
                client.sendall(pid.to_bytes(8, "big"))
                clients[pid] = client
                events.register(client, selectors.EVENT_READ, pid)
            else:  # the launcher was killed
                events.unregister(key.fileobj)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(key.data, signal.SIGKILL)


def _report(clients: dict[int, socket.socket], events: selectors.BaseSelector) -> None:
    """Tells launchers how their processes have ended."""
    while clients:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        client = clients.pop(pid)
        with contextlib.suppress(KeyError):
            events.unregister(client)
        with contextlib.suppress(OSError), client:
            client.sendall(status.to_bytes(8, "big"))


def _receive(client: socket.socket) -> tuple[dict, list[int]]:
    """What a launcher asks for, and its standard streams."""
    head, ancillary, *_ = client.recvmsg(8, socket.CMSG_SPACE(3 * array.array("i").itemsize))
    streams = array.array("i")
    streams.frombytes(ancillary[0][2])
    size, data = int.from_bytes(head, "big"), b""
    while len(data) < size:
        data += client.recv(size - len(data))
    return json.loads(data), list(streams)


def _become(request: dict, streams: list[int]) -> None:
    """This process, just forked, becomes the one that was asked for."""
    os.setsid()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = io.TextIOWrapper(open(1, "wb", closefd=False), line_buffering=os.isatty(1))  # noqa: SIM115
    sys.stderr = io.TextIOWrapper(open(2, "wb", 0, closefd=False), errors="backslashreplace", write_through=True)  # noqa: SIM115
    os.chdir(request["directory"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.executable = request["python"]
    arguments = request["arguments"]
    added = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path and path not in sys.path]
    sys.path[:1] = [str(Path.cwd()) if arguments[0] == "-m" else str(Path(arguments[0]).resolve().parent), *added]
    _reseed()
    faulthandler.dump_traceback_later(HUNG, exit=True, file=2)
    code = _run(arguments)
    faulthandler.cancel_dump_traceback_later()
    with contextlib.suppress(Exception):
        threading._shutdown()
        atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(code)


def _reseed() -> None:
    """What a new process draws or reads at its start."""
    import numpy as np
    import torch

    random.seed()
    np.random.seed()
    tempfile.tempdir = None
    if "OMP_NUM_THREADS" in os.environ:
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


def _run(arguments: list[str]) -> int:
    """Runs a script or a module; the exit code."""
    try:
        if arguments[0] == "-m":
            sys.argv = arguments[1:]
            runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = arguments
            runpy.run_path(arguments[0], run_name="__main__")
    except SystemExit as error:
        if error.code is None or isinstance(error.code, int):
            return error.code or 0
        print(error.code, file=sys.stderr)
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    del sys.path[0]  # this folder
    serve(sys.argv[1])
