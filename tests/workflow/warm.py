"""Python programs that start at once: forked off a process that has imported already what they import.

Most of a short study is the start of its programs. ``running`` makes a folder of programs with their usual names. Each
is a few lines that have the warm process fork a child; the child works in the folder, in the environment and on the
streams of its program, which ends with the child's exit code.
"""

import importlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import entry_points
from pathlib import Path

PROGRAMS = ("silent-gradients", "snakemake", "dvc")

# What they import, but for Snakemake's plugins, which read its arguments when they are imported.
IMPORTED = (
    *("dvc.cli", "dvc.repo.reproduce", "matplotlib.pyplot", "pandas", "seaborn", "snakemake.cli", "snakemake.workflow"),
    *("silent_study.report.gather", "silent_study.plan.selection", "silent_study.jobs.pack"),
)

CLIENT = """\
#!{python} -SE
import json, os, socket, struct, sys
connection = socket.socket(socket.AF_UNIX)
connection.connect({socket!r})
document = json.dumps([os.path.basename(sys.argv[0]), sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
socket.send_fds(connection, [struct.pack("!Q", len(document))], [0, 1, 2])
connection.sendall(document)
answer = connection.recv(16)
sys.exit(int(answer) if answer else 1)
"""


@contextmanager
def running(folder: Path) -> Iterator[Path]:
    """Start the warm process; yields the folder of the programs. What runs is listed in its folder ``running``."""
    folder.mkdir(parents=True)
    (folder / "running").mkdir()
    address = folder / "socket"
    for name in PROGRAMS:
        program = folder / name
        program.write_text(CLIENT.format(python=sys.executable, socket=str(address)))
        program.chmod(0o755)
    environment = os.environ | dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    command = [sys.executable, "-m", "tests.workflow.warm", str(folder)]
    with subprocess.Popen(command, env=environment, cwd=Path(__file__).parents[2]) as server:
        try:
            while not address.exists():
                if server.poll() is not None:
                    raise RuntimeError(f"the warm process ended with {server.returncode}")
                time.sleep(0.05)
            yield folder
        finally:
            server.terminate()


def _receive(connection: socket.socket) -> tuple[list[int], str, list[str], str, dict[str, str]]:
    length, streams, _flags, _address = socket.recv_fds(connection, 8, 3)
    document = b""
    while len(document) < int.from_bytes(length):
        document += connection.recv(1 << 20)
    program, arguments, folder, environment = json.loads(document)
    return streams, program, arguments, folder, environment


def _run(streams: list[int], program: str, arguments: list[str], folder: str, environment: dict[str, str]) -> None:
    """Be the program; never returns."""
    code = 1
    try:
        for target, stream in enumerate(streams):
            os.dup2(stream, target)
        os.closerange(3, 4096)
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(folder)
        (entry,) = entry_points(group="console_scripts", name=program)
        main = entry.load()
        sys.argv = [program, *arguments]
        code = main() or 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 (as the interpreter does at the end of a program)
        traceback.print_exc()
    finally:
        for written in (sys.stdout, sys.stderr):
            with suppress(OSError):
                written.flush()
        os._exit(code)


def serve(folder: Path) -> None:
    """Fork a child for each program that connects, and send the program its child's exit code."""
    for name in IMPORTED:
        importlib.import_module(name)
    tasks = len(list(Path("/proc/self/task").iterdir()))
    assert tasks == 1, f"{tasks} threads: only one would be left in a child"
    children: dict[int, socket.socket] = {}
    with socket.socket(socket.AF_UNIX) as listener, selectors.DefaultSelector() as selector:
        listener.bind(str(folder / "new"))
        listener.listen(64)
        (folder / "new").rename(folder / "socket")
        selector.register(listener, selectors.EVENT_READ)
        while True:
            if selector.select(timeout=0.02):
                connection, _address = listener.accept()
                streams, program, arguments, place, environment = _receive(connection)
                child = os.fork()
                if child == 0:
                    _run(streams, program, arguments, place, environment)
                for stream in streams:
                    os.close(stream)
                children[child] = connection
                (folder / "running" / str(child)).write_text(json.dumps([program, *arguments]))
            for child in list(children):
                ended, status = os.waitpid(child, os.WNOHANG)
                if ended:
                    (folder / "running" / str(child)).unlink()
                    code = os.waitstatus_to_exitcode(status)
                    with children.pop(child) as connection, suppress(OSError):  # whoever asked may be dead
                        connection.sendall(str(code if code >= 0 else 128 - code).encode())


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    serve(Path(sys.argv[1]))
