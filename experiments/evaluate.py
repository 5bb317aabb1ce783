"""Evaluates the best checkpoint of a run on its test split.

    python -m experiments.evaluate --workdir=runs/digits

Several processes share the work, started as those of `experiments.train` are, where each can read
the folder.
"""

import pathlib

from experiments import command
from experiments.config import datasets
from experiments.run import record, restoring, scoring
from triplet_jax.models import inference


def main() -> None:
    workdir = pathlib.Path(
        command.required(command.WORKDIR, "the folder of a trained run")
    ).absolute()
    command.start_processes()
    of_run(workdir, command.DATA.value)


def of_run(workdir: pathlib.Path, moved_to: str | None = None) -> dict:
    """Evaluates the run of a folder; see `scoring.evaluate`.

    Args:
      workdir: of the run.
      moved_to: where the data are now, if they were moved.

    Raises:
      InputError: the run, its checkpoints or its data cannot be read, or do not belong together.
    """
    config = record.read_config(workdir)
    everything = record.open_data(workdir, config, moved_to)
    datasets.check_test(config, everything)
    encoder, state, checkpoints = restoring.load_run(
        config, workdir, everything.input_shape, everything.pair_shapes
    )
    embed = inference.make_embed(encoder, batch=config.evaluate.batch)
    return scoring.evaluate(config, workdir, everything, embed, state, checkpoints)


if __name__ == "__main__":
    command.run(main, of_several=True)
