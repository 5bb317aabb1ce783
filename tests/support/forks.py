"""Starts the programs under `experiments` without the ten seconds that their imports take.

    python -m tests.support.forks SOCKET    # a file descriptor

A server imports what the programs share, and starts no device. Each program is a fork of it that
goes on as `python -m experiments.PROGRAM` does. One runs at a time.
"""

import importlib
import json
import os
import pathlib
import runpy
import socket
import subprocess
import sys

SHARED = (
    "experiments.run.training",
    "experiments.sweeps.vectorised",
    "experiments.sweeps.report_page",
)


class Server:
    """A process that waits for programs to start, and ends when this one does.

    Args:
      folder: that programs run in.
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

    def fileno(self) -> int:
        """There is something to read once the program has ended."""
        return self._socket.fileno()

    def fork(
        self,
        module: str,
        arguments: list[str],
        environment: dict[str, str],
        files,
        folder: pathlib.Path,
    ) -> int:
        """Starts a program that writes to two files, and returns the number of its process."""
        request = json.dumps([module, arguments, environment, str(folder)]).encode()
        socket.send_fds(self._socket, [request], [file.fileno() for file in files])
        return int(self._socket.recv(32))

    def status(self) -> int:
        """Waits for the program to end; what it ended with, negative for a signal."""
        return int(self._socket.recv(32))

    def close(self) -> None:
        self._socket.close()
        self._process.wait()


def serve(client: socket.socket):
    """Returns in each fork, with what to run; the server itself never returns."""
    while True:
        request, files, _, _ = socket.recv_fds(client, 1 << 17, 2)
        if not request:
            sys.exit()
        pid = os.fork()
        if not pid:
            client.close()
            return json.loads(request), files
        for file in files:
            os.close(file)
        client.send(str(pid).encode())
        client.send(str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])).encode())


if __name__ == "__main__":
    for name in SHARED:
        importlib.import_module(name)
    (module, arguments, environment, folder), files = serve(socket.socket(fileno=int(sys.argv[1])))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for file, number in zip(files, (1, 2), strict=True):
        os.dup2(file, number)
        os.close(file)
    os.chdir(folder)
    sys.path[0] = folder
    os.environ.clear()
    os.environ.update(environment)
    sys.argv[1:] = arguments
    sys.modules.pop(module, None)  # what a program is imported from is itself a program
    runpy.run_module(module, run_name="__main__", alter_sys=True)
