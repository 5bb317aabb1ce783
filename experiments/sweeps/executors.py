"""The engines of a sweep, which carry out its runs: here, in processes, vectorised, by a cluster.

An engine takes all runs, the sweep, and a function to call whenever a run may have ended. It skips
the runs that have ended. It leaves each run's folder as `experiments.train` does (`vectorised`
without `timing.jsonl`), or with an error in it. It returns early when somebody asks to stop.
"""

import contextlib
import signal
import time
from collections.abc import Callable, Sequence

import jax

from experiments import command
from experiments.run import config_json, lock, training
from experiments.sweeps import child, runs, slurm, vectorised_processes
from triplet_jax import errors
from triplet_jax.devices import signals
from triplet_jax.runs import health

Engine = Callable[[Sequence[runs.Run], object, Callable[[], None]], None]


def here(planned: Sequence[runs.Run], sweep, show: Callable[[], None]) -> None:
    """Trains one run after the other in this process."""
    for run in planned:
        if run.has_ended:
            continue
        train_here(run)
        if not run.has_ended:
            return
        show()


def train_here(run: runs.Run, goes_on: training.GoesOn | None = None) -> None:
    """Trains one run in this process; what it prints goes into its `log.txt`.

    A run that breaks is marked as failed. After a stop it has not ended.

    Args:
      run: the run.
      goes_on: whether it goes on after a validation; see `training.train`.
    """
    run.folder.mkdir(parents=True, exist_ok=True)
    with (
        lock.claimed(run.folder),
        (run.folder / "log.txt").open("a") as log,
        contextlib.redirect_stdout(log),
    ):
        try:
            training.train(run.config, run.folder, goes_on)
        except (errors.InputError, health.NotFiniteError) as error:
            run.fail(str(error))
        except jax.errors.JaxRuntimeError as error:
            if "out of memory" not in str(error).lower():
                raise
            run.fail(str(error))


def processes(planned: Sequence[runs.Run], sweep, show: Callable[[], None]) -> None:
    """Trains several runs at a time, each in a process of its own."""
    waiting, running = [run for run in planned if not run.has_ended], {}
    stop = signals.Stop()
    with stop.listening(), _ending(running):
        while (waiting or running) and stop.signal is None:
            # Processes of a sweep that was killed may still be saving.
            free = [run for run in waiting if not lock.is_claimed(run.folder)]
            for run in free[: sweep.processes - len(running)]:
                waiting.remove(run)
                running[run.folder] = run, _start(run)
            time.sleep(0.2)
            for folder, (run, process) in list(running.items()):
                if process.poll() is None:
                    continue
                del running[folder]
                # It was killed, or lacks something, and can go on later.
                if process.returncode < 0 or process.returncode == command.LOST:
                    print(f"{run.name}: {child.last_word(folder, process.returncode)}")
                    return
                if process.returncode:
                    run.fail(child.last_word(folder, process.returncode))
                elif not run.has_ended:
                    return
                show()


@contextlib.contextmanager
def _ending(running):
    """Whatever happens, leaves no process behind: each saves and ends."""
    try:
        yield
    finally:
        for _, process in running.values():
            process.send_signal(signal.SIGTERM)
        for _, process in running.values():
            process.wait()


def _start(run):
    run.folder.mkdir(parents=True, exist_ok=True)
    config_json.remember(run.folder, run.config)
    with (run.folder / "log.txt").open("a") as log:
        return child.start(run.folder, log)


ENGINES: dict[str, Engine] = {
    "here": here,
    "processes": processes,
    "vectorised": vectorised_processes.train_all,
    "slurm": slurm.jobs,
}
