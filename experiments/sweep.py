"""Runs the arms of an experiment over seeds, and compares them.

    python -m experiments.sweep --config=configs/sweeps/schedules.py --workdir=runs/schedules

The same command continues a sweep that was stopped or killed: finished runs stay, and a run that
failed stays with its error. `--retry` runs the failed ones again.
"""

import pathlib

from absl import flags

from experiments import command
from experiments.config import components
from experiments.run import lock
from experiments.sweeps import plan, slurm
from experiments.sweeps.execution import carry_out

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


if __name__ == "__main__":
    command.run(
        main, again="Run the same command again to go on with the runs that have not ended."
    )
