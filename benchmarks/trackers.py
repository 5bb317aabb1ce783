"""Measures what a row costs in each tracker, beside ten steps of training.

    pip install -e '.[mlflow,tensorboard,trackio,wandb]'
    python -m benchmarks.trackers --write

A row of 21 numbers is written every half second, as a run with `log.every=10` and steps of 50 ms
does. CPU time is counted on one core: that of the thread that trains, and that of all threads and
processes, less what the same program takes without a tracker. A step is that of conv4 in
`benchmarks.training`. Each case runs in its own process, in rounds; the medians of the rounds are
shown. All that is written lies in a folder that is removed.
"""

import json
import os
import pathlib
import statistics
import tempfile
import time
from typing import Any

from benchmarks import common, training

NONE, STEP = "none", "step"
TRACKERS = ("tensorboard", "mlflow", "wandb", "trackio")
CASES = (STEP, NONE, *TRACKERS, "+".join(TRACKERS))
NUMBERS, ROWS, SECONDS = 21, 40, 0.5
LOG_EVERY = 10


def measure(case: str) -> dict[str, float]:
    """CPU milliseconds of a row, or of a step, on one core."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    if case == STEP:
        step, _ = training.ours("conv4")
        step()
        return {"all": 1e3 * statistics.median(common.times(step, time.process_time))}
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.environ |= {"TRACKIO_DIR": f"{folder}/trackio", "WANDB_MODE": "offline"}
        return _rows(() if case == NONE else case.split("+"), pathlib.Path(folder))


def _rows(names, folder):
    from configs import digits
    from experiments.config import settings
    from triplet_jax.runs.trackers import opening

    trackers = opening.opened(names, folder, name="run", group="benchmark")
    trackers.config(settings.flat(digits.get_config("semi_hard")))
    row = {f"number {i}": 0.1 * i for i in range(NUMBERS)}
    for number in range(3):
        trackers.write({"step": number} | row)
    _wait_until_idle()
    own, before = 0.0, _cpu_seconds()
    for number in range(1, ROWS + 1):
        start = time.thread_time()
        trackers.write({"step": LOG_EVERY * number} | row)
        own += time.thread_time() - start
        time.sleep(SECONDS)
    found = {"own": 1e3 * own / ROWS, "all": 1e3 * (_cpu_seconds() - before) / ROWS}
    trackers.end("finished")
    trackers.wait(time.monotonic() + 30)
    if (log := folder / opening.LOG).exists():
        return {"note": log.read_text().splitlines()[0]}
    return found


def _wait_until_idle() -> None:
    """Waits for what happens once: imports, the making of tables, the start of processes."""
    for _ in range(30):
        before = _cpu_seconds()
        time.sleep(2.0)
        if _cpu_seconds() - before < 0.1:
            return


def _cpu_seconds() -> float:
    """The CPU seconds of this process and of all that it has started."""
    parents, seconds = {}, {}
    for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            text = path.read_text()
        except OSError:  # it has just ended
            continue
        # The name of the program, in parentheses, may hold spaces.
        words = text.rpartition(")")[2].split()
        parents[int(path.parent.name)] = int(words[1])
        seconds[int(path.parent.name)] = sum(map(int, words[11:13])) / os.sysconf("SC_CLK_TCK")

    def is_ours(pid):
        while pid and pid != os.getpid():
            pid = parents.get(pid, 0)
        return bool(pid)

    others = sum(s for pid, s in seconds.items() if pid != os.getpid() and is_ours(pid))
    return time.process_time() + others


def measure_all(options) -> dict[str, Any]:
    """Measures all cases, in rounds."""
    found: dict[str, Any] = {"machine": common.machine("jax", "tensorboardX", *TRACKERS[1:])}
    found["records"] = {case: [] for case in CASES}
    for number in range(options.rounds):
        for case, so_far in found["records"].items():
            so_far.append(
                common.in_own_process(
                    "benchmarks.trackers", "--measure", case, timeout=options.timeout
                )
            )
            print(f"round {number + 1} {case}: {so_far[-1]}", flush=True)
    options.output.write_text(json.dumps(found, indent=1) + "\n")
    return found


def tables(found: dict[str, Any]) -> str:
    """What was measured, as Markdown."""

    def median(case, key):
        return statistics.median(record[key] for record in found["records"][case])

    ten_steps = LOG_EVERY * median(STEP, "all")
    rows = []
    for case in CASES[2:]:
        notes = [record["note"] for record in found["records"][case] if "note" in record]
        if notes:
            rows.append((case, "", "", notes[0]))
            continue
        every = max(median(case, "all") - median(NONE, "all"), 0.0)
        own = max(median(case, "own") - median(NONE, "own"), 0.0)
        rows.append((case, f"{own:.2f}", f"{every:.1f}", f"{every / ten_steps:.2%}"))
    header = ("tracker", "CPU ms a row, of the thread that trains", "of all", "of ten steps")
    steps = f"Ten steps of conv4 take {ten_steps:,.0f} ms of CPU time on one core."
    return f"{found['machine']}. {steps}\n\n{common.table(header, rows)}"


def main() -> None:
    options = common.parser(__doc__, "trackers", rounds=3).parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure)))
    else:
        common.report(options, measure_all, tables)


if __name__ == "__main__":
    main()
