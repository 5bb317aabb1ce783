"""What a sweep found: a table, and a page that needs no network, from the files of its runs.

python -m experiments.report --workdir=runs/schedules
"""

import pathlib

from experiments import command
from experiments.sweeps import summary


def main() -> None:
    workdir = pathlib.Path(command.required(command.WORKDIR, "the folder of a sweep")).absolute()
    summary.write(workdir)


if __name__ == "__main__":
    command.run(main)
