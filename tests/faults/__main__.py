"""What happens to runs, done to real processes, and a table of how each ended.

    python -m tests.faults --kills=50 --write

Every fault is done to a small run of every part (memory, average, offline mining, streamed data),
which then goes on by the same command until it is through. `same` is written where metrics, the
last parameters and the scores are, bit for bit, those of a run that was left alone. Nothing here is
hidden from the table: a fault that ends otherwise has a row that says so, in capitals.
"""

import argparse
import pathlib
import random
import sys
import tempfile
from collections.abc import Callable, Iterator

from tests.faults import checkpoints, inputs, kills, machine, table
from tests.faults.bench import Bench, NotDone, last_line

Fault = Callable[[Bench], Iterator[str]]
FAULTS: tuple[Fault, ...] = (
    kills.training_killed,
    kills.saving_killed,
    kills.one_of_two_killed,
    kills.launcher_killed,
    kills.worker_killed,
    kills.loader_killed,
    kills.asked_to_stop,
    machine.disk_full,
    machine.disk_filled,
    machine.slow_disk,
    checkpoints.newest_cut,
    checkpoints.newest_flipped,
    checkpoints.older_best_damaged,
    machine.read_only_folder,
    machine.two_in_one_folder,
    inputs.data_cut_short,
    inputs.not_a_number,
    inputs.not_finite,
    inputs.image_that_is_none,
    machine.jumping_clock,
)
NOT_RUN = "NOT RUN: the harness ended before it"


def main() -> None:
    known = {fault.__name__: fault for fault in FAULTS}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50, help="of a training process")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--only",
        nargs="+",
        choices=known,
        default=list(known),
        help="faults; keeps other rows of the same seed, kills and versions",
    )
    parser.add_argument("--write", action="store_true", help=f"to {table.RESULTS.name}")
    given = parser.parse_args()
    made, commit = table.made_with(given.seed, given.kills), table.commit()
    rows = table.read(made)

    def tell(fault, ended):
        rows[fault.__doc__] = table.row(fault.__doc__, ended, commit)
        if given.write:
            table.write(rows, [fault.__doc__ for fault in FAULTS], made)

    chosen = [known[name] for name in given.only]
    for fault in chosen:  # no row of before stays, whatever becomes of this process
        tell(fault, [NOT_RUN])
    well = True
    with tempfile.TemporaryDirectory(prefix="faults") as folder:
        bench = Bench(pathlib.Path(folder), given.kills, random.Random(given.seed)).leave_alone()
        for fault in chosen:
            # Its own draws, whichever faults were done before.
            bench.random.seed(f"{given.seed} {fault.__name__}")
            ended = list(outcomes(fault, bench))
            tell(fault, ended)
            print(rows[fault.__doc__], flush=True)
            well = well and not any(how[:1].isupper() for how in ended)
    sys.exit(not well)


def outcomes(fault: Fault, bench: Bench) -> Iterator[str]:
    """How the runs ended, or why that is not known."""
    try:
        yield from fault(bench)
    except NotDone as why:
        yield f"not done: {why}"
    except AssertionError as error:  # of a wait: it ended too early, or hangs
        yield f"HANGS OR ENDS: {last_line(str(error))}"
    except Exception as error:
        yield f"THE HARNESS BROKE: {type(error).__name__}: {last_line(str(error))}"


if __name__ == "__main__":
    main()
