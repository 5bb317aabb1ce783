"""Trains an embedding as a config says, and evaluates it.

    python -m experiments.train --config=configs/digits.py:semi_hard --workdir=runs/digits

The same command continues a run that was stopped or killed.
"""

import ml_collections
from ml_collections import config_flags

from experiments import command, training

CONFIG = config_flags.DEFINE_config_file("config", help_string="File, with :variant, of a config.")


def main() -> None:
    command.required(CONFIG, "a config file, such as --config=configs/digits.py:semi_hard")
    workdir = command.make_workdir(command.required(command.WORKDIR, "the folder of the run"))
    training.train(ml_collections.FrozenConfigDict(CONFIG.value), workdir)


if __name__ == "__main__":
    command.run(main)
