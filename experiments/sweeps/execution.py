"""Carries out a sweep: the runs that have not ended, and the report once all have."""

import pathlib

import ml_collections

from experiments.run import tracking
from experiments.sweeps import executors, report, runs
from experiments.sweeps.board import Board


def carry_out(
    sweep: ml_collections.ConfigDict, planned: list[runs.Run], workdir: pathlib.Path
) -> None:
    """Carries out the runs that have not ended, and writes the report once all have."""
    pending = [run for run in planned if not run.has_ended]
    print(
        f"sweep   {len(planned)} runs: {len(sweep.arms)} arms x {len(sweep.settings)} settings x"
        f" {len(sweep.seeds)} seeds; {len(pending)} to do, by the engine {sweep.engine}"
    )
    if sweep.claim:
        source = f" ({sweep.source})" if sweep.source else ""
        print(f"claim   {sweep.claim}{source}")
    with Board(planned, sweep.metric) as board:
        executors.ENGINES[sweep.engine](planned, sweep, board.show)
    unfinished = [run for run in planned if not run.has_ended]
    if unfinished:
        print(f"stopped with {len(unfinished)} runs to do. Run the same command again to go on.")
        return
    written = report.write(workdir)
    tracking.show_report(sweep.run.log.trackers, workdir, written)
