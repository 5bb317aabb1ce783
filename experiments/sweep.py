"""Runs the arms of an experiment over seeds, and compares them.

    python -m experiments.sweep --config=configs/sweeps/schedules.py --workdir=runs/schedules

The same command continues a sweep that was stopped or killed: finished runs stay, and a run that
failed stays with its error. `--retry` runs the failed ones again.
"""

import pathlib

from absl import flags

from experiments import command
from experiments.config import components
from experiments.run import config_json, lock
from experiments.sweeps import arm_trials, execution, plan, runs, slurm
from triplet_jax import errors

CONFIG = command.config_file("sweep", "File of a sweep; docs/fields.md lists its fields.")
CANCEL = flags.DEFINE_bool("cancel", False, "End the jobs of the engine slurm.")
RETRY = flags.DEFINE_bool("retry", False, "Run those again that failed.")


def main() -> None:
    command.required(CONFIG, "a sweep, such as --config=configs/sweeps/schedules.py")
    sweep = CONFIG.value
    workdir = pathlib.Path(command.required(command.WORKDIR, "the folder of the sweep")).absolute()
    if CANCEL.value:
        _cancel(workdir)
        return
    trials = arm_trials.plan(sweep, workdir)
    planned = [run for trial in trials for run in trial.runs] or plan.plan(sweep, workdir)
    plan.check_data(planned)
    command.make_workdir(str(workdir))
    if sweep.engine == "slurm":
        slurm.check()
    with lock.claimed(workdir):
        _check_unchanged(planned)
        plan.remember(sweep, workdir)
        if trials:
            _retry(planned)
            chosen = execution.choose(sweep, trials)
            if chosen is None:
                return
            planned = plan.plan(sweep, workdir, chosen)
            plan.check_data(planned)
            _check_unchanged(planned)
            _check_chosen(planned)
        _retry(planned)
        execution.carry_out(sweep, planned, workdir)


def _cancel(workdir: pathlib.Path) -> None:
    """Ends the jobs of a sweep, whose data need not be there."""
    if not (workdir / "sweep.json").exists():
        raise errors.InputError(f"--workdir={workdir} holds no sweep: there is no sweep.json.")
    slurm.check()
    print(f"cancelled {slurm.cancel(workdir)} jobs")


def _check_unchanged(planned: list[runs.Run]) -> None:
    for run in planned:
        components.check_unchanged(run.folder, run.config)


def _check_chosen(planned: list[runs.Run]) -> None:
    """Refuses runs that were trained with another trial than is chosen now."""
    for run in planned:
        if not (run.folder / "config.json").exists():
            continue
        if lines := config_json.refused(run.folder, run.config):
            raise errors.InputError(
                f"{run.name} was trained with another trial than is chosen now:\n{lines}\nGive"
                " another --workdir, or the metric and the trials of before."
            )


def _retry(planned: list[runs.Run]) -> None:
    """Forgets that runs failed, where the user asked for it."""
    if RETRY.value:
        failed = [run for run in planned if run.state == "failed"]
        slurm.Book(planned[0].workdir).forget(failed)
        for run in failed:
            run.error_file.unlink()


if __name__ == "__main__":
    command.run(
        main, again="Run the same command again to go on with the runs that have not ended."
    )
