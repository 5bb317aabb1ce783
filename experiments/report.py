"""Reports what a sweep found: a table, and a page that needs no network.

python -m experiments.report --workdir=runs/schedules
"""

import pathlib

from experiments import command
from experiments.sweeps import report


def main() -> None:
    workdir = pathlib.Path(command.required(command.WORKDIR, "the folder of a sweep")).absolute()
    report.write(workdir)


if __name__ == "__main__":
    command.run(main)
