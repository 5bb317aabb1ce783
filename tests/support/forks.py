"""Starts programs without the ten seconds that their imports take.

    python -m tests.support.forks SOCKET    # a file descriptor

A server imports what the programs share, and starts no device. Each program is a fork of it that
goes on as `python -m experiments.PROGRAM` does, or as `python -c CODE`. Several may run at once.
"""

import contextlib
import gc
import importlib
import json
import os
import pathlib
import runpy
import socket
import subprocess
import sys
import types

from tests.support import compiling

SHARED = (
    "experiments.run.training",
    "experiments.sweeps.vectorised",
    "experiments.sweeps.report_page",
    # What these take a second and more to import. Not LanceDB, which starts a thread.
    "lance_namespace_urllib3_client",
    "matplotlib.pyplot",
    "sklearn.cluster",
    "sklearn.manifold",
)


class Server:
    """A process that waits for programs to start, and ends when this one does.

    Args:
      folder: that it imports from.
      environment: of its imports.
    """

    def __init__(self, folder: pathlib.Path, environment: dict[str, str]):
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.forks", str(theirs.fileno())],
                cwd=folder,
                env=environment,
                pass_fds=[theirs.fileno()],
            )

    def fork(
        self,
        what: tuple[str, str],
        arguments: list[str],
        environment: dict[str, str],
        files,
        folder: pathlib.Path,
    ) -> tuple[int, socket.socket]:
        """Starts a program that writes to two files.

        Args:
          what: ("-m", a module) or ("-c", code).
          arguments: of the program.
          environment: of the program.
          files: its standard output and its standard error.
          folder: that it runs in.

        Returns:
          The number of its process, and a socket that gives its status once it has ended, negative
          for a signal.
        """
        request = json.dumps([what, arguments, environment, str(folder)]).encode()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            socket.send_fds(self._socket, [request], [file.fileno() for file in (*files, theirs)])
        return int(ours.recv(32)), ours

    def close(self) -> None:
        self._socket.close()
        self._process.wait()


def serve(client: socket.socket):
    """Returns in each fork, with what to run; the server itself never returns."""
    while True:
        request, files, _, _ = socket.recv_fds(client, 1 << 17, 3)
        if not request:
            sys.exit()
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if not os.fork():
            client.close()
            return _watched(json.loads(request), files)
        for file in files:
            os.close(file)


def _watched(request, files):
    """Returns in the program; the process that waits for its end never returns."""
    *streams, answer = files
    with socket.socket(fileno=answer) as answer:
        pid = os.fork()
        if pid:
            for stream in streams:
                os.close(stream)
            answer.send(str(pid).encode())
            answer.send(str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])).encode())
            os._exit(0)
    return request, streams


def go_on(how: str, what: str) -> None:
    """Runs a module or code as the interpreter would have."""
    if how == "-m":
        sys.modules.pop(what, None)  # what a program is imported from is itself a program
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        sys.argv[0] = "-c"
        main = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(what, "<string>", "exec"), vars(main))


if __name__ == "__main__":
    for name in SHARED:
        importlib.import_module(name)
    compiling.in_few_contexts()
    # What is imported stays: a program need neither look through it nor copy its pages.
    gc.freeze()
    request, streams = serve(socket.socket(fileno=int(sys.argv[1])))
    program, given, environment, folder = request
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for stream, number in zip(streams, (1, 2), strict=True):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(folder)
    sys.path[0] = folder
    os.environ.clear()
    os.environ.update(environment)
    sys.argv[1:] = given
    go_on(*program)
