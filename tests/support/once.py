"""What several workers of pytest need is made by one of them."""

import fcntl
import os
import shutil


def made_once(tmp_path_factory, name, make):
    """A folder that `make` fills, by the first worker that asks; the others wait for it.

    It is of all workers: no test may change it.
    """
    root = tmp_path_factory.getbasetemp()
    if os.environ.get("PYTEST_XDIST_WORKER"):
        root = root.parent
    folder, done = root / name, root / f"{name}.done"
    with (root / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            make(folder)
            done.touch()
    return folder
