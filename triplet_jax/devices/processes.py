"""A run of several processes, on one machine or many: started, told apart, and of one mind.

Every process takes the same steps, each with devices and a part of the batch of its own. The first
alone touches the folder of the run, and what it reads there the others hear from it, so that they
need no file system in common. With one process nothing here does anything.
"""

import os
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import PyTree, Shaped

from triplet_jax import errors

# The number of tasks that a launcher started, where it says so.
LAUNCHERS = {"srun": "SLURM_STEP_NUM_TASKS", "mpirun": "OMPI_COMM_WORLD_SIZE"}
AUTO = "auto"
# After so long without a word of one process the others end too. Each says one every half of it, so
# that one that stands still is waited for half of it at least.
HEARTBEAT_SECONDS = 100
# So long the processes of a run wait for one that has not come yet.
JOIN_SECONDS = 300


def start(coordinator: str = "", processes: int = 0, process: int = -1) -> None:
    """Joins the processes of a run, if there are several; before any other use of jax.

    Args:
      coordinator: HOST:PORT of the first process. Empty asks `srun` and `mpirun`, which are known
        by what they set in the environment where they start more than one task. "auto" asks
        whatever `jax.distributed.initialize` knows, such as Kubernetes or a TPU pod.
      processes: how many there are.
      process: the number of this one, from 0.

    Raises:
      InputError: only some of the three are given, or `process` is too large.
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
    started = any(int(os.environ.get(name) or 1) > 1 for name in LAUNCHERS.values())
    if coordinator == AUTO or (started and not coordinator):
        jax.distributed.initialize(**timeouts)
    elif coordinator:
        jax.distributed.initialize(coordinator, processes, process, **timeouts)
    if several() and not is_first():
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what the first says is said once


def check_devices() -> None:
    """Refuses processes of unlike numbers of devices, over which no array can be.

    Raises:
      InputError: saying how many each has.
    """
    # Each process knows all devices, so that none has to ask another.
    counts = np.bincount([device.process_index for device in jax.devices()]).tolist()
    if len(set(counts)) > 1:
        raise errors.InputError(
            f"The processes have {counts} devices, and must have as many each: they share"
            " a batch evenly."
        )


def meet() -> None:
    """Connects every process with all others, while none has anything to do yet.

    On CPUs gloo does it for each set of devices when it is first used, and gives up after 30
    seconds: one that compiled or read its data for longer than the others would end the run.
    """
    if several():
        from_first(np.zeros(1))
        ones = np.ones(jax.local_device_count())
        jax.block_until_ready(jax.pmap(lambda x: jax.lax.psum(x, "all"), "all")(ones))


def several() -> bool:
    """Whether the run has more than one process."""
    return jax.distributed.is_initialized() and jax.process_count() > 1


def is_first() -> bool:
    """Whether this process is the one that writes."""
    return jax.process_index() == 0


def from_first(tree: PyTree) -> PyTree:
    """The arrays of the first process, in every process; shapes and types must be the same."""
    if jax.process_count() == 1:
        return tree
    leaves, structure = jax.tree.flatten(jax.device_get(tree))
    arrays = [np.ascontiguousarray(leaf) for leaf in leaves]
    # As bytes: jax adds up over processes, and -0.0 would come back as 0.0.
    sent = np.concatenate([np.zeros(0, np.uint8)] + [a.reshape(-1).view(np.uint8) for a in arrays])
    heard = np.asarray(multihost_utils.broadcast_one_to_all(sent))
    ends = np.cumsum([a.nbytes for a in arrays])
    parts = np.split(heard, ends[:-1]) if arrays else []
    return structure.unflatten(
        [
            p.view(a.dtype).reshape(np.shape(x))
            for p, a, x in zip(parts, arrays, leaves, strict=True)
        ]
    )


def first_does(task: Callable[[], Any]) -> Any:
    """What `task()` returns in the first process, and None in the others.

    All wait for it, and where it fails, all do.

    Raises:
      InputError: what `task` raised.
      LostError: what `task` raised; in the others for an OSError of the first, too.
      OSError: what `task` raised, in the first process.
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
    """What `read()` gives in the first process, in every process; None where it gives None.

    Args:
      read: called in the first process alone.
      like: arrays of the same structure, shapes and types.

    Raises:
      InputError: what `read` raised.
    """
    found = first_does(read)
    if not from_first(np.bool_(found is not None)):
        return None
    return from_first(like if found is None else found)


def own_share(
    rows: Shaped[np.ndarray, "rows ..."],
) -> tuple[Shaped[np.ndarray, "share ..."], int]:
    """This process's part of rows that all have, and the place of its first. Parts are of one size:
    zeros fill up the last."""
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
    """What every process has of its share, put together again, in every process."""
    if jax.process_count() == 1:
        return tree
    return jax.tree.map(lambda x: x[:rows], multihost_utils.process_allgather(tree, tiled=True))


def _text_of_first(text):
    if jax.process_count() == 1:
        return text
    data = np.frombuffer(text.encode(), np.uint8)
    size = int(from_first(np.int32(len(data))))
    padded = np.zeros(size, np.uint8)
    if is_first():
        padded[:] = data
    return bytes(from_first(padded)).decode() if size else ""
