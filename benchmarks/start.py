"""Times a run from its command to its first step, with and without a compilation cache.

    python -m benchmarks.start --write

The command is `python -m experiments.train --config=configs/digits.py:semi_hard`, which is stopped
after its first step. Each round is a process of its own. CPU seconds are those of the process, and
tell more than seconds where other programs share the processor.
"""

import json
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

from benchmarks import common

CONFIG = "configs/digits.py:semi_hard"
CASES = ("imports", "compiled before", "compiled anew")


def measure(case: str, cache: str) -> dict[str, float]:
    """Seconds and CPU seconds of one start."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["-m", "experiments.train", f"--config={CONFIG}", f"--workdir={folder}/run"]
        if case == "imports":
            command = ["-c", "import experiments.train; print('step 1/')"]
        cache = f"{folder}/cache" if case == "compiled anew" else cache
        started = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-u", *command, *["--config.log.every=1"] * (case != "imports")],
            env=os.environ | {"JAX_COMPILATION_CACHE_DIR": cache},
            stdout=subprocess.PIPE,
            text=True,
        )
        for line in process.stdout:
            if line.startswith("step 1/"):
                break
        seconds, busy = time.perf_counter() - started, _cpu_seconds(process.pid)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    return {"seconds": seconds, "cpu_seconds": busy}


def _cpu_seconds(pid: int) -> float:
    """The CPU seconds of a process that goes on, or has just ended."""
    # The name of the program, in parentheses, may hold spaces.
    after_name = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, after_name[11:13])) / os.sysconf("SC_CLK_TCK")


def measure_all(options) -> dict[str, Any]:
    """Measures all cases, in rounds."""
    rounds: dict[str, list] = {case: [] for case in CASES}
    found: dict[str, Any] = {"machine": common.machine("jax", "flax", "orbax-checkpoint")}
    with tempfile.TemporaryDirectory() as cache:
        measure("compiled before", cache)  # fills the cache
        for number in range(options.rounds):
            for case, so_far in rounds.items():
                so_far.append(measure(case, cache))
                print(f"round {number + 1} {case}: {so_far[-1]}", flush=True)
    found["records"] = rounds
    options.output.write_text(json.dumps(found, indent=1) + "\n")
    return found


def tables(found: dict[str, Any]) -> str:
    """What was measured, as Markdown."""
    rows = []
    for case, records in found["records"].items():
        values = [sorted(r[key] for r in records) for key in ("seconds", "cpu_seconds")]
        texts = [f"{statistics.median(v):.1f} ({v[0]:.1f} to {v[-1]:.1f})" for v in values]
        rows.append((case, *texts))
    header = ("until the first step of a run on digits", "s (least to most)", "CPU s")
    return f"{found['machine']}.\n\n{common.table(header, rows)}"


def main() -> None:
    common.report(common.parser(__doc__, "start", rounds=5).parse_args(), measure_all, tables)


if __name__ == "__main__":
    main()
