"""How the runs of a sweep are carried out: here, in processes, vectorised, or by a cluster.

An engine takes all runs, of which it passes over those that have ended, the sweep, and a
function to call when something may have ended. It leaves each run's folder as `experiments.train`
does (`vectorised` without `timing.jsonl`), or an error in it, and returns early where somebody
asked to stop.
"""

import contextlib
import signal
import time
from collections.abc import Callable, Sequence

from experiments import command
from experiments.run import config_json, lock, training
from experiments.sweeps import child, runs, slurm, vectorised
from triplet_jax import errors
from triplet_jax.devices import signals
from triplet_jax.runs import health

Engine = Callable[[Sequence[runs.Run], object, Callable[[], None]], None]


def here(planned: Sequence[runs.Run], sweep, show: Callable[[], None]) -> None:
    """One run after the other in this process."""
    for run in planned:
        if run.has_ended:
            continue
        run.folder.mkdir(parents=True, exist_ok=True)
        with (
            lock.claimed(run.folder),
            (run.folder / "log.txt").open("a") as log,
            contextlib.redirect_stdout(log),
        ):
            try:
                training.train(run.config, run.folder)
            except (errors.InputError, health.NotFiniteError) as error:
                run.fail(str(error))
        if not run.has_ended:
            return
        show()


def processes(planned: Sequence[runs.Run], sweep, show: Callable[[], None]) -> None:
    """Some runs at a time, each in a process of its own."""
    waiting, running = [run for run in planned if not run.has_ended], {}
    stop = signals.Stop()
    with stop.listening(), _ending(running):
        while (waiting or running) and stop.signal is None:
            # Of a sweep that was killed some processes may still be saving.
            free = [run for run in waiting if not lock.is_claimed(run.folder)]
            for run in free[: sweep.processes - len(running)]:
                waiting.remove(run)
                running[run.folder] = run, _start(run)
            time.sleep(0.2)
            for folder, (run, process) in list(running.items()):
                if process.poll() is None:
                    continue
                del running[folder]
                # Killed by somebody, or without what it needs, to go on later.
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
    """Whatever happens, no process stays behind: they save and leave."""
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
    "vectorised": vectorised.train_all,
    "slurm": slurm.jobs,
}
