"""The page to explore the embeddings of a run: maps, neighbours and images in one HTML file."""

import base64
import io
import pathlib
from collections.abc import Iterator
from typing import NamedTuple

import jinja2
import numpy as np
import PIL.Image
from jaxtyping import Float, Int

from experiments.run import restoring
from triplet_jax import data, errors, evaluation
from triplet_jax.analysis import classes, projection
from triplet_jax.runs import files

NEIGHBOURS = 10
# The side of a thumbnail, in pixels.
_LARGEST_THUMBNAIL = 32


class View(NamedTuple):
    """What the page shows of one checkpoint, or of one file of embeddings.

    Args:
      name: of the checkpoint or the file.
      points: the place of each example on the map.
      neighbours: the nearest examples of each, the nearest first.
      distances: of those.
      clusters: the cluster of each example.
      note: a line with the scores.
    """

    name: str
    points: Float[np.ndarray, "examples 2"]
    neighbours: Int[np.ndarray, "examples neighbours"]
    distances: Float[np.ndarray, "examples neighbours"]
    clusters: Int[np.ndarray, "examples"]
    note: str


def embeddings_of_checkpoints(
    run: restoring.TrainedRun, shown: data.Dataset
) -> Iterator[tuple[int, Float[np.ndarray, "examples dim"]]]:
    """Embeds examples with every checkpoint that a run kept, in the order of their steps.

    Raises:
      InputError: there is no checkpoint, or one cannot be read.
    """
    if not run.checkpoints.steps:
        run.judged()  # raises, and says how to mend that
    for step in run.checkpoints.steps:
        state = run.checkpoints.restore(step, run.like)
        yield step, run.embed_with(state, shown.inputs)


def make_view(
    name: str,
    embeddings: Float[np.ndarray, "examples dim"],
    labels: Int[np.ndarray, "examples"],
    *,
    project: str,
    start: Float[np.ndarray, "examples 2"] | None = None,
) -> View:
    """Makes the map of some embeddings, and finds their neighbours and clusters.

    Args:
      name: of the checkpoint or the file that they come from.
      embeddings: of the examples.
      labels: their classes.
      project: the projection to the map, one of `projection.PROJECTIONS`.
      start: the points of the view before, where this t-SNE map begins, so that examples stay
        about where they are; or None.
    """
    if project == "tsne":
        points = projection.tsne(embeddings, start=start)
    else:
        points = projection.PROJECTIONS[project](embeddings)
    count = min(NEIGHBOURS, len(embeddings) - 1)
    distances = neighbours = np.zeros((len(embeddings), 0))
    if count:
        distances, neighbours = evaluation.nearest(embeddings, None, neighbours=count)
    scores = evaluation.retrieval(embeddings, labels)
    note = "no score: no two examples are of one class"
    if scores["queries"]:
        note = f"P@1 {scores['precision_at_1']:.3f}, MAP@R {scores['map_at_r']:.3f}"
    return View(
        name=name,
        points=points,
        neighbours=neighbours,
        distances=distances,
        clusters=classes.clusters(embeddings, len(np.unique(labels))),
        note=note,
    )


def render(title: str, shown: data.Dataset, pixels: np.ndarray, views: list[View]) -> str:
    """Renders the page, which needs no network.

    Args:
      title: of the page.
      shown: the examples.
      pixels: their images `[examples, height, width, channels]`, or features, which have no
        thumbnails.
      views: of the checkpoints or the files, in their order.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("experiments", "templates"), autoescape=True
    )
    present, codes = np.unique(shown.labels, return_inverse=True)
    content = {
        "names": [str(shown.class_names[c]) for c in present],
        "labels": _packed(codes, np.uint32),
        "neighbours": min(NEIGHBOURS, len(shown) - 1),
        "atlas": _atlas(pixels) if pixels.ndim == 4 else None,
        "views": [
            {
                "name": view.name,
                "note": view.note,
                "points": _packed(_unit_square(view.points), np.float32),
                "neighbours": _packed(view.neighbours, np.uint32),
                "distances": _packed(view.distances, np.float32),
                "clusters": _packed(view.clusters, np.uint32),
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
    """Scales both directions alike into [0, 1], and centres the points."""
    low, high = points.min(axis=0), points.max(axis=0)
    return (points - (low + high) / 2) / max(float(np.max(high - low)), 1e-12) + 0.5


def _atlas(pixels):
    """Puts all images into one, row after row, each scaled to a thumbnail."""
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
    encoded = base64.b64encode(file.getvalue()).decode()
    return {"src": f"data:image/{form.lower()};base64,{encoded}", "side": side, "columns": columns}


def write_projector(
    folder: pathlib.Path,
    embeddings: Float[np.ndarray, "examples dim"],
    shown: data.Dataset,
    pixels: np.ndarray,
) -> None:
    """Writes the embeddings, names and images for TensorBoard's projector.

    Args:
      folder: to write in.
      embeddings: of the examples.
      shown: the examples.
      pixels: their images, or features.

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
        writer.add_embedding(embeddings, metadata=names, label_img=pictures)
