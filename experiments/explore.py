"""Writes a page to explore embeddings, of a run or in files: a map, with images and neighbours.

    python -m experiments.explore --workdir=runs/digits
    python -m experiments.explore --embeddings=ours.npz,theirs.npz --output=both.html

The page is one file that needs no network: --output, or explore.html in the workdir. Files of
embeddings are those that `experiments.evaluate` takes; they have no images.
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
from triplet_jax.evaluation import embedding_files
from triplet_jax.runs import files

EMBEDDINGS = flags.DEFINE_list(
    "embeddings", None, "Files of embeddings to explore side by side: A.npz,B.npz."
)
TABLE = flags.DEFINE_string("table", None, "A table with the labels of the rows of those files.")
SPLIT = flags.DEFINE_string("split", "test", "Which examples: train, validation, test.")
PROJECTION = flags.DEFINE_string("projection", "tsne", "The map: pca, tsne, umap.")
MOST = flags.DEFINE_integer("most", 20_000, "Examples on the map; of more, some at even spaces.")
PROJECTOR = flags.DEFINE_string("projector", None, "Also write this folder for TensorBoard.")


def main() -> None:
    errors.check_known("--projection", PROJECTION.value, projection.PROJECTIONS)
    errors.check_known("--split", SPLIT.value, ("train", "validation", "test"))
    if MOST.value <= explore_page.NEIGHBOURS:
        raise errors.InputError(f"--most={MOST.value} must be above {explore_page.NEIGHBOURS}.")
    if EMBEDDINGS.value:
        _explore_files()
    else:
        _explore_run()


def _explore_run():
    workdir = pathlib.Path(
        command.required(
            command.WORKDIR, "the folder of a trained run, or give --embeddings=FILE.npz"
        )
    )
    if TABLE.value:
        raise errors.InputError("--table goes with --embeddings.")
    output = workdir / "explore.html"
    if command.OUTPUT.value:
        output = command.file_to_write(command.OUTPUT, ".html")
    config = config_json.read(workdir)
    everything = data_json.open_data(workdir, config, command.DATA.value)
    shown = everything.take(choose(everything.split))
    pixels = images.load(shown.inputs)
    run = restoring.load(workdir.absolute(), config, everything.input_shape, everything.pair_shapes)
    of_views = {
        f"step {step}": embeddings
        for step, embeddings in explore_page.embeddings_of_checkpoints(run, shown)
    }
    if PROJECTOR.value:
        *_, last = of_views.values()
        explore_page.write_projector(pathlib.Path(PROJECTOR.value), last, shown, pixels)
        print(f"for TensorBoard: tensorboard --logdir={PROJECTOR.value}")
    title = f"{config.dataset.name}, {settings.rule(config)}: {SPLIT.value} split of {workdir.name}"
    _write(output, title, shown, pixels, of_views)


def _explore_files():
    if command.WORKDIR.value or command.DATA.value or PROJECTOR.value:
        raise errors.InputError(
            "--embeddings shows files: leave out --workdir, --data and --projector."
        )
    output = command.file_to_write(command.OUTPUT, ".html")
    paths = EMBEDDINGS.value
    read = [
        embedding_files.read(path, split=SPLIT.value, table=TABLE.value or "") for path in paths
    ]
    for path, other in zip(paths[1:], read[1:], strict=True):
        embedding_files.check_comparable(read[0], other, (paths[0], path))
    class_names, labels = np.unique(read[0].labels, return_inverse=True)
    split = np.full(len(labels), SPLIT.value)
    class_names = tuple(map(str, class_names))
    chosen = choose(split)
    shown = data.Dataset(read[0].embeddings, labels.astype(np.int32), split, class_names)
    shown = shown.take(chosen)
    short = [pathlib.Path(path).name for path in paths]
    names = short if len(set(short)) == len(short) else paths
    of_views = {name: file.embeddings[chosen] for name, file in zip(names, read, strict=True)}
    _write(output, ", ".join(of_views), shown, shown.inputs, of_views)


def _write(output, title, shown, pixels, of_views):
    """Writes the page with a view of each array of embeddings."""
    views, start = [], None
    for name, embeddings in of_views.items():
        print(f"{name}: a map of {len(shown):,} embeddings by {PROJECTION.value}", flush=True)
        view = explore_page.make_view(
            name, embeddings, shown.labels, project=PROJECTION.value, start=start
        )
        start = view.points
        views.append(view)
    files.write_text(output, explore_page.render(title, shown, pixels, views))
    print(f"written to {output}: {output.stat().st_size / 2**20:.1f} MiB")


def choose(split: np.ndarray) -> np.ndarray:
    """The places of examples of --split; of --most of them, at even spaces, where there are more.

    Args:
      split: of every example.

    Raises:
      InputError: they are too few to have neighbours.
    """
    places = np.flatnonzero(split == SPLIT.value)
    if len(places) <= explore_page.NEIGHBOURS:
        raise errors.InputError(
            f"--split={SPLIT.value} has {len(places)} examples; more than"
            f" {explore_page.NEIGHBOURS} are needed."
        )
    count = min(MOST.value, len(places))
    return places[np.arange(count) * len(places) // count]


if __name__ == "__main__":
    command.run(main, takes=(command.DATA, command.OUTPUT))
