"""Runs of several processes, on one machine or many: joins them and shares what the first reads.

All processes take the same steps, each with its own devices and its own part of the batch. Only
the first touches the folder of the run, and passes on what it reads there, so that they need no
common file system. With one process the functions of this module pass their arguments through.
"""

import math
import os
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import PyTree, Shaped

from triplet_jax import errors

# The environment variable in which a launcher states how many tasks it started.
LAUNCHERS = {"srun": "SLURM_STEP_NUM_TASKS", "mpirun": "OMPI_COMM_WORLD_SIZE"}
AUTO = "auto"
HEARTBEAT_SECONDS = 100
"""If a process is silent for this long, the others end. Processes signal twice in this time, so a
process that hangs is waited for at least half of it."""
JOIN_SECONDS = 300
"""How long the processes of a run wait for one that has not joined."""


def start(coordinator: str = "", processes: int = 0, process: int = -1) -> None:
    """Joins the processes of a run, if there are several. Call it before any other use of jax.

    Args:
      coordinator: HOST:PORT of the first process. If it is empty, processes that `srun` or `mpirun`
        started are joined; their environment shows it. "auto" leaves the search to
        `jax.distributed.initialize`, which also knows Kubernetes and TPU pods.
      processes: the number of processes.
      process: the number of this process, from 0.

    Raises:
      InputError: only some of the three are given, `process` is too large, or numbers are given
        beside "auto".
    """
    timeouts = {
        "initialization_timeout": JOIN_SECONDS,
        "heartbeat_timeout_seconds": HEARTBEAT_SECONDS,
        "shutdown_timeout_seconds": HEARTBEAT_SECONDS,
    }
    given = bool(coordinator), processes > 0, process >= 0
    if any(given) and not all(given) and coordinator != AUTO:
        raise errors.InputError(
            f"coordinator={coordinator!r}, processes={processes} and process={process} are given"
            " together or not at all: the address HOST:PORT of the first process, how many"
            " there are, and the number of this one from 0."
        )
    if processes and process >= processes:
        raise errors.InputError(
            f"process={process} must be below processes={processes}: the first is number 0."
        )
    if coordinator == AUTO and any(given[1:]):
        raise errors.InputError(
            f"coordinator='auto' finds the processes and their numbers: leave out"
            f" processes={processes} and process={process}."
        )
    started = any(int(os.environ.get(name) or 1) > 1 for name in LAUNCHERS.values())
    if coordinator == AUTO or (started and not coordinator):
        jax.distributed.initialize(**timeouts)
    elif coordinator:
        jax.distributed.initialize(coordinator, processes, process, **timeouts)
    if several() and not is_first():
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # only the first prints


def check_devices() -> None:
    """Refuses processes with different numbers of devices, over which no array can be spread.

    Raises:
      InputError: the numbers differ; the message states them.
    """
    # Each process knows all devices, and need not ask the others.
    counts = np.bincount([device.process_index for device in jax.devices()]).tolist()
    if len(set(counts)) > 1:
        raise errors.InputError(
            f"The processes have {counts} devices. All must have the same number, since they share"
            " a batch evenly."
        )


def meet() -> None:
    """Connects every process with all others, before they start to work.

    On CPUs gloo connects each set of devices when it is first used, and gives up after 30 seconds.
    A process that compiles or reads data for that long after the others would end the run.
    """
    if several():
        from_first(np.zeros(1))
        ones = np.ones(jax.local_device_count())
        jax.block_until_ready(jax.pmap(lambda x: jax.lax.psum(x, "all"), "all")(ones))


def several() -> bool:
    """Whether the run has more than one process."""
    return jax.distributed.is_initialized() and jax.process_count() > 1


def is_first() -> bool:
    """Whether this is the first process, which writes the files of the run."""
    return jax.process_index() == 0


def from_first(tree: PyTree) -> PyTree:
    """Gives every process the arrays of the first; all pass arrays of the same shapes and types.

    With several processes they are arrays of numpy, which may be written to.
    """
    if jax.process_count() == 1:
        return tree
    leaves, structure = jax.tree.flatten(jax.device_get(tree))
    arrays = [np.ascontiguousarray(leaf) for leaf in leaves]
    # As bytes, since jax broadcasts by a sum over processes, which turns -0.0 into 0.0.
    sent = np.concatenate([np.zeros(0, np.uint8)] + [a.reshape(-1).view(np.uint8) for a in arrays])
    heard = np.asarray(multihost_utils.broadcast_one_to_all(sent))
    ends = np.cumsum([a.nbytes for a in arrays])
    parts = np.split(heard, ends[:-1]) if arrays else []
    return structure.unflatten(
        [
            p.copy().view(a.dtype).reshape(np.shape(x))
            for p, a, x in zip(parts, arrays, leaves, strict=True)
        ]
    )


def first_does(task: Callable[[], Any]) -> Any:
    """Runs `task` in the first process while the others wait; if it fails, all processes fail.

    Returns:
      The result of `task` in the first process, None in the others.

    Raises:
      InputError: `task` raised it.
      LostError: `task` raised it, or, in the other processes, raised an OSError.
      OSError: `task` raised it; only in the first process.
    """
    result = error = None
    if is_first():
        try:
            result = task()
        except (errors.InputError, errors.LostError, OSError) as raised:
            if jax.process_count() == 1:
                raise
            error = raised
    refused = isinstance(error, errors.InputError)
    said = _text_of_first("" if error is None else f"{refused:d}process 0 says: {error}")
    if error is not None:
        raise error
    if said:
        raise (errors.InputError if said[0] == "1" else errors.LostError)(said[1:])
    return result


def first_reads(read: Callable[[], PyTree | None], *, like: PyTree) -> PyTree | None:
    """Gives every process the arrays, or the None, that `read` returns in the first.

    Args:
      read: the function to call; only the first process does.
      like: arrays, or their shapes and types, of the same structure as `read` returns.

    Raises:
      InputError: `read` raised it.
      LostError: `read` raised it, or, in the other processes, raised an OSError.
      OSError: `read` raised it; only in the first process.
    """
    found = first_does(read)
    if not from_first(np.bool_(found is not None)):
        return None
    if found is None and not is_first():
        found = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), like)
    return from_first(found)


def own_share(
    rows: Shaped[np.ndarray, "rows ..."],
) -> tuple[Shaped[np.ndarray, "share ..."], int]:
    """This process's share of rows that all processes have, and the position of its first row.

    All shares have one size; zeros fill the last.
    """
    count = jax.process_count()
    if count == 1:
        return rows, 0
    size = -(-len(rows) // count)
    first = jax.process_index() * size
    own = np.zeros((size, *rows.shape[1:]), rows.dtype)
    part = rows[first : first + size]
    own[: len(part)] = part
    return own, first


def all_shares(tree: PyTree, rows: int) -> PyTree:
    """Joins the results of all shares in every process: the inverse of `own_share`.

    Args:
      tree: arrays of this process's share.
      rows: the number of rows of all shares, without those that fill the last.
    """
    if jax.process_count() == 1:
        return tree

    def joined(own):
        # As bytes, since jax would make float32 of float64.
        own = np.ascontiguousarray(own)
        sent = own.reshape(len(own), math.prod(own.shape[1:])).view(np.uint8)
        heard = np.asarray(multihost_utils.process_allgather(sent, tiled=True))[:rows]
        return heard.copy().view(own.dtype).reshape(rows, *own.shape[1:])

    return jax.tree.map(joined, tree)


def _text_of_first(text: str) -> str:
    """Gives every process the text of the first."""
    if jax.process_count() == 1:
        return text
    # A file name that is not UTF-8 has halves of surrogates.
    data = np.frombuffer(text.encode(errors="backslashreplace"), np.uint8)
    size = int(from_first(np.int32(len(data))))
    padded = np.zeros(size, np.uint8)
    if is_first():
        padded[:] = data
    return bytes(from_first(padded)).decode() if size else ""
