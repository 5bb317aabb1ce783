"""Runs the arms of an experiment over seeds, and compares them.

    python -m experiments.sweep --config=configs/sweeps/schedules.py --workdir=runs/schedules

The same command continues a sweep that was stopped or killed: finished runs stay, and a run that
failed stays with its error. `--retry` runs the failed ones again.
"""

import pathlib

import ml_collections
from absl import flags

from experiments import command
from experiments.config import components
from experiments.run import lock, tracking
from experiments.sweeps import executors, plan, report, runs, slurm
from experiments.sweeps.board import Board

CONFIG = command.config_file("File of a sweep; docs/fields.md lists its fields.")
CANCEL = flags.DEFINE_bool("cancel", False, "End the jobs of the engine slurm.")
RETRY = flags.DEFINE_bool("retry", False, "Run those again that failed.")


def main() -> None:
    command.required(CONFIG, "a sweep, such as --config=configs/sweeps/schedules.py")
    sweep = CONFIG.value
    workdir = pathlib.Path(command.required(command.WORKDIR, "the folder of the sweep")).absolute()
    planned = plan.plan(sweep, workdir)
    plan.check_data(planned)
    command.make_workdir(str(workdir))
    if CANCEL.value or sweep.engine == "slurm":
        slurm.check()
    if CANCEL.value:
        print(f"cancelled {slurm.cancel(workdir)} jobs")
        return
    with lock.claimed(workdir):
        for run in planned:
            components.check_unchanged(run.folder, run.config)
        plan.remember(sweep, workdir)
        if RETRY.value:
            failed = [run for run in planned if run.state == "failed"]
            slurm.Book(workdir).forget(failed)
            for run in failed:
                run.error_file.unlink()
        carry_out(sweep, planned, workdir)


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


if __name__ == "__main__":
    command.run(
        main, again="Run the same command again to go on with the runs that have not ended."
    )
