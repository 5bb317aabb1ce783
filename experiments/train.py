"""Trains an embedding as a config says, and evaluates it.

    python -m experiments.train --config=configs/digits.py:semi_hard --workdir=runs/digits

The same command continues a run that was stopped or killed. With `srun -n N` before it, or
`mpirun -n N`, the run has N processes; elsewhere start each with --coordinator=HOST:PORT,
--processes=N and --process=I.
"""

import contextlib
import pathlib

import ml_collections

from experiments import command
from experiments.run import lock, training
from triplet_jax.devices import processes

CONFIG = command.config_file(
    "run", "File, with :variant, of a config; docs/fields.md lists its fields."
)


def main() -> None:
    command.required(CONFIG, "a config file, such as --config=configs/digits.py:semi_hard")
    path = command.required(command.WORKDIR, "the folder of the run")
    command.start_processes()
    workdir = pathlib.Path(path).absolute()
    with contextlib.ExitStack() as resources:
        processes.first_does(lambda: command.make_workdir(path))
        processes.first_does(lambda: resources.enter_context(lock.claimed(workdir)))
        training.train(ml_collections.FrozenConfigDict(CONFIG.value), workdir)


if __name__ == "__main__":
    command.run(
        main,
        of_several=True,
        again="Run the same command again: a run goes on from its last checkpoint.",
    )
