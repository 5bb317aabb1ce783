"""Evaluates a run on its test split, by its best checkpoint or, as its config says, its last.

    python -m experiments.evaluate --workdir=runs/digits

Several processes share the work where each can read the folder; start them as those of
`experiments.train`.
"""

import pathlib

from experiments import command
from experiments.run import evaluating


def main() -> None:
    workdir = pathlib.Path(command.required(command.WORKDIR, "the folder of a trained run"))
    command.start_processes()
    evaluating.evaluate_folder(workdir.absolute(), command.DATA.value)


if __name__ == "__main__":
    command.run(main, of_several=True)
