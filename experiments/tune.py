"""Searches for the values of a config's fields that score best on its validation split.

    python -m experiments.tune --config=configs/tune/digits.py --workdir=runs/tune

The same command goes on with a study that was stopped or killed. Several processes may run it at
the same time, on one machine or as jobs of a cluster: they share the study.
"""

import pathlib

from experiments import command
from experiments.tuning import checks, studies
from experiments.tuning.search import search

CONFIG = command.config_file("study", "File of a study; docs/fields.md lists its fields.")


def main() -> None:
    command.required(CONFIG, "a study, such as --config=configs/tune/digits.py")
    study = CONFIG.value
    workdir = pathlib.Path(command.required(command.WORKDIR, "the folder of the study")).absolute()
    studies.optuna()
    space = checks.check(study)
    checks.check_data(study, space)
    command.make_workdir(str(workdir))
    with studies.alone(workdir):
        checks.remember(study, workdir)
    search(study, space, workdir)


if __name__ == "__main__":
    command.run(
        main, again="Run the same command again to go on with the trials that have not ended."
    )
