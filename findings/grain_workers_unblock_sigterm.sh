#!/usr/bin/env bash
# Workers of grain that are started while SIGTERM is blocked can be ended by SIGTERM, if they are the
# first processes that Python starts.
#
# One would expect: a process inherits the mask of signals of the thread that starts it. A training
# program that is asked to stop by SIGTERM, as SLURM asks all processes of a job, finishes its step
# and writes a checkpoint; so it blocks the signal while it starts the workers that load its batches.
# They then go on until the program itself ends them.
#
# What happens: before its first process, the start method "spawn", which grain uses, launches a
# tracker of resources. For that it blocks SIGINT and SIGTERM, and unblocks them afterwards, whether
# they were blocked before or not. So the first workers are started without the mask, and SIGTERM
# ends them; workers that are started later in the same program inherit it.
#
# What is right: call `multiprocessing.resource_tracker.ensure_running()` before blocking the signals.
#
# Seen with Python 3.11.7 and grain 0.2.18 on Linux; the source is `ensure_running` in
# https://github.com/python/cpython/blob/3.11/Lib/multiprocessing/resource_tracker.py
# Output seen:
#   SIGTERM is blocked in the first worker: False
#   SIGTERM is blocked in a later worker: True
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check grain==0.2.18
cat > "$folder/workers.py" <<'PYTHON'
import multiprocessing
import pathlib
import signal

import grain
from absl import flags


class Numbers:
    def __len__(self):
        return 100

    def __getitem__(self, i):
        return i


def first_worker_blocks_sigterm():
    """Starts workers while SIGTERM is blocked, and reads the mask of one of them from Linux."""
    batches = grain.MapDataset.source(Numbers()).to_iter_dataset()
    batches = batches.mp_prefetch(grain.MultiprocessingOptions(num_workers=1))
    before = set(multiprocessing.active_children())
    iterator = iter(batches)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    iterator.get_state()  # makes the workers, which the next line starts
    iterator.start_prefetch()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    next(iterator)
    [worker] = set(multiprocessing.active_children()) - before
    status = pathlib.Path(f"/proc/{worker.pid}/status").read_text()
    blocked = int(status.split("SigBlk:")[1].split()[0], 16)
    iterator.close()
    return bool(blocked >> (signal.SIGTERM - 1) & 1)


if __name__ == "__main__":
    flags.FLAGS.mark_as_parsed()
    first, later = first_worker_blocks_sigterm(), first_worker_blocks_sigterm()
    print("SIGTERM is blocked in the first worker:", first)
    print("SIGTERM is blocked in a later worker:", later)
    assert not first, "the first worker inherits the mask now"
    assert later, "later workers no longer inherit the mask"
PYTHON
"$folder/venv/bin/python" "$folder/workers.py"
