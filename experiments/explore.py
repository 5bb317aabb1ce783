"""Writes a page to explore the embeddings of a run: a map, with the images and neighbours.

    python -m experiments.explore --workdir=runs/digits

The page is one file that needs no network: --output, or explore.html in the workdir.
"""

import pathlib

import numpy as np
from absl import flags

from experiments import command
from experiments.config import settings
from experiments.run import config_json, data_json, explore_page, restoring
from triplet_jax import data, errors
from triplet_jax.analysis import projection
from triplet_jax.data import images
from triplet_jax.runs import files

SPLIT = flags.DEFINE_string("split", "test", "Which examples: train, validation, test.")
PROJECTION = flags.DEFINE_string("projection", "tsne", "The map: pca, tsne, umap.")
MOST = flags.DEFINE_integer("most", 20_000, "Examples on the map; of more, some at even spaces.")
PROJECTOR = flags.DEFINE_string("projector", None, "Also write this folder for TensorBoard.")


def main() -> None:
    workdir = pathlib.Path(command.required(command.WORKDIR, "the folder of a trained run"))
    output = workdir / "explore.html"
    if command.OUTPUT.value:
        output = command.file_to_write(command.OUTPUT, ".html")
    errors.check_known("--projection", PROJECTION.value, projection.PROJECTIONS)
    errors.check_known("--split", SPLIT.value, ("train", "validation", "test"))
    if MOST.value <= explore_page.NEIGHBOURS:
        raise errors.InputError(f"--most={MOST.value} must be above {explore_page.NEIGHBOURS}.")
    config = config_json.read(workdir)
    everything = data_json.open_data(workdir, config, command.DATA.value)
    shown = choose(everything)
    pixels = images.load(shown.inputs)
    run = restoring.load(workdir.absolute(), config, everything.input_shape, everything.pair_shapes)
    views, start = [], None
    for step, embeddings in explore_page.embeddings_of_checkpoints(run, shown):
        print(f"step {step}: a map of {len(shown):,} embeddings by {PROJECTION.value}", flush=True)
        view = explore_page.make_view(
            step, embeddings, shown.labels, project=PROJECTION.value, start=start
        )
        start = view.points
        views.append(view)
    if PROJECTOR.value:
        explore_page.write_projector(pathlib.Path(PROJECTOR.value), embeddings, shown, pixels)
        print(f"for TensorBoard: tensorboard --logdir={PROJECTOR.value}")
    title = f"{config.dataset.name}, {settings.rule(config)}: {SPLIT.value} split of {workdir.name}"
    files.write_text(output, explore_page.render(title, shown, pixels, views))
    print(f"written to {output}: {output.stat().st_size / 2**20:.1f} MiB")


def choose(everything: data.Dataset) -> data.Dataset:
    """The examples of --split; --most of them, at even spaces, where there are more.

    Raises:
      InputError: they are too few to have neighbours.
    """
    places = np.flatnonzero(everything.split == SPLIT.value)
    if len(places) <= explore_page.NEIGHBOURS:
        raise errors.InputError(
            f"--split={SPLIT.value} has {len(places)} examples; more than"
            f" {explore_page.NEIGHBOURS} are needed."
        )
    count = min(MOST.value, len(places))
    return everything.take(places[np.arange(count) * len(places) // count])


if __name__ == "__main__":
    command.run(main)
