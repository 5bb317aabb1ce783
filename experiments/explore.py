"""Writes a page to explore the embeddings of a run: a map, with the images and neighbours.

python -m experiments.explore --workdir=runs/digits        # --output: explore.html in the workdir

The page is one file that needs no network.
"""

import base64
import io
import pathlib

import jinja2
import numpy as np
import PIL.Image
from absl import flags

from experiments import command
from experiments.config import settings
from experiments.run import config_json, data_json, restoring
from triplet_jax import errors, evaluation
from triplet_jax.analysis import classes, projection
from triplet_jax.data import images
from triplet_jax.runs import files

SPLIT = flags.DEFINE_string("split", "test", "Which examples: train, validation, test.")
PROJECTION = flags.DEFINE_string("projection", "tsne", "The map: pca, tsne, umap.")
MOST = flags.DEFINE_integer("most", 20_000, "Examples on the map; of more, some at even spaces.")
PROJECTOR = flags.DEFINE_string("projector", None, "Also write this folder for TensorBoard.")

NEIGHBOURS = 10
# The side of a thumbnail, in pixels.
_LARGEST_THUMBNAIL = 32


def main() -> None:
    workdir = pathlib.Path(command.required(command.WORKDIR, "the folder of a trained run"))
    output = workdir / "explore.html"
    if command.OUTPUT.value:
        output = command.file_to_write(command.OUTPUT, ".html")
    errors.check_known("--projection", PROJECTION.value, projection.PROJECTIONS)
    errors.check_known("--split", SPLIT.value, ("train", "validation", "test"))
    if MOST.value <= NEIGHBOURS:
        raise errors.InputError(f"--most={MOST.value} must be above {NEIGHBOURS}.")
    config = config_json.read(workdir)
    everything = data_json.open_data(workdir, config, command.DATA.value)
    chosen = np.flatnonzero(everything.split == SPLIT.value)
    if len(chosen) <= NEIGHBOURS:
        raise errors.InputError(
            f"--split={SPLIT.value} has {len(chosen)} examples; more than {NEIGHBOURS} are needed."
        )
    chosen = chosen[
        np.arange(min(MOST.value, len(chosen))) * len(chosen) // min(MOST.value, len(chosen))
    ]
    shown = everything.take(chosen)
    pixels = images.load(shown.inputs)
    views, start = [], None
    for step, embedded in of_checkpoints(config, workdir.absolute(), shown, everything.input_shape):
        print(f"step {step}: a map of {len(shown):,} embeddings by {PROJECTION.value}", flush=True)
        view = make_view(step, embedded, shown.labels, start)
        start = view["points"]
        views.append(view)
    if PROJECTOR.value:
        write_projector(pathlib.Path(PROJECTOR.value), embedded, shown, pixels)
        print(f"for TensorBoard: tensorboard --logdir={PROJECTOR.value}")
    title = f"{config.dataset.name}, {settings.rule(config)}: {SPLIT.value} split of {workdir.name}"
    files.write_text(output, render(title, shown, pixels, views))
    print(f"written to {output}: {output.stat().st_size / 2**20:.1f} MiB")


def of_checkpoints(config, workdir: pathlib.Path, shown, input_shape):
    """The step and the embeddings of every checkpoint that the run kept, in order."""
    run = restoring.load(workdir, config, input_shape, shown.pair_shapes)
    if not run.checkpoints.steps:
        run.judged()  # raises, and says how to mend that
    for step in run.checkpoints.steps:
        yield step, run.embed_with(run.checkpoints.restore(step, run.like), shown.inputs)


def make_view(step: int, embedded: np.ndarray, labels: np.ndarray, start) -> dict:
    """What the page shows of one checkpoint.

    Args:
      step: of the checkpoint.
      embedded: the examples.
      labels: their classes.
      start: the map of the checkpoint before, from which this one starts; or None.
    """
    if PROJECTION.value == "tsne":
        points = projection.tsne(embedded, start=start)
    else:
        points = projection.PROJECTIONS[PROJECTION.value](embedded)
    count = min(NEIGHBOURS, len(embedded) - 1)
    distance = neighbours = np.zeros((len(embedded), 0))
    if count:
        distance, neighbours = evaluation.nearest(embedded, None, neighbours=count)
    scores = evaluation.retrieval(embedded, labels)
    return {
        "step": step,
        "points": points,
        "neighbours": neighbours,
        "distances": distance,
        "clusters": classes.clusters(embedded, len(np.unique(labels))),
        "note": "no score: no two examples are of one class"
        if not scores["queries"]
        else f"P@1 {scores['precision_at_1']:.3f}, MAP@R {scores['map_at_r']:.3f}",
    }


def render(title: str, shown, pixels: np.ndarray, views: list[dict]) -> str:
    """The page, with everything in it."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("experiments", "templates"), autoescape=True
    )
    present, codes = np.unique(shown.labels, return_inverse=True)
    content = {
        "names": [str(shown.class_names[c]) for c in present],
        "labels": _packed(codes, np.uint32),
        "neighbours": min(NEIGHBOURS, len(shown) - 1),
        "atlas": atlas(pixels) if pixels.ndim == 4 else None,
        "views": [
            {
                "step": view["step"],
                "note": view["note"],
                "points": _packed(_unit_square(view["points"]), np.float32),
                "neighbours": _packed(view["neighbours"], np.uint32),
                "distances": _packed(view["distances"], np.float32),
                "clusters": _packed(view["clusters"], np.uint32),
            }
            for view in views
        ],
    }
    return environment.get_template("explore.html").render(
        title=title,
        examples=len(shown),
        content=files.as_json(content).replace("<", "\\u003c"),  # no text in it ends the script
    )


def _packed(array, kind):
    return base64.b64encode(np.ascontiguousarray(array, np.dtype(kind).newbyteorder("<"))).decode()


def _unit_square(points):
    """Scaled alike in both directions, into [0, 1], in the middle."""
    low, high = points.min(axis=0), points.max(axis=0)
    return (points - (low + high) / 2) / max(float(np.max(high - low)), 1e-12) + 0.5


def atlas(pixels: np.ndarray) -> dict:
    """All images in one, row after row, each scaled to a thumbnail."""
    n, height, _, channels = pixels.shape
    side = min(_LARGEST_THUMBNAIL, height)
    columns = int(np.ceil(np.sqrt(n)))
    mode = "L" if channels == 1 else "RGB"
    whole = PIL.Image.new(mode, (columns * side, -(-n // columns) * side))
    for i, picture in enumerate(pixels):
        small = PIL.Image.fromarray(picture[..., 0] if channels == 1 else picture)
        if small.size != (side, side):
            small = small.resize((side, side), PIL.Image.Resampling.BOX)
        whole.paste(small, (i % columns * side, i // columns * side))
    file, form = io.BytesIO(), ("PNG" if channels == 1 else "JPEG")
    whole.save(file, form, **({"quality": 85} if form == "JPEG" else {"optimize": True}))
    data = base64.b64encode(file.getvalue()).decode()
    return {"src": f"data:image/{form.lower()};base64,{data}", "side": side, "columns": columns}


def write_projector(folder: pathlib.Path, embedded: np.ndarray, shown, pixels: np.ndarray) -> None:
    """The same for TensorBoard's projector.

    Raises:
      InputError: tensorboardX is not installed.
    """
    try:
        import tensorboardX
    except ImportError as error:
        raise errors.InputError(
            "--projector needs tensorboardX: pip install tensorboardX"
        ) from error
    pictures = None
    if pixels.ndim == 4:
        pictures = np.moveaxis(np.broadcast_to(pixels, (*pixels.shape[:3], 3)), 3, 1) / 255.0
    with tensorboardX.SummaryWriter(str(folder)) as writer:
        names = [str(shown.class_names[c]) for c in shown.labels]
        writer.add_embedding(embedded, metadata=names, label_img=pictures)


if __name__ == "__main__":
    command.run(main)
