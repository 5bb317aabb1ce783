"""A page in Markdown beside an exported encoder: what it is, and what is known of it."""

import collections
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import flax.traverse_util

from experiments.config import defaults, settings
from experiments.run import evaluating, score_table
from triplet_jax import errors
from triplet_jax.models import export
from triplet_jax.runs import files

NAME = "card.md"
_LEFT_OUT = ("log.",)
# What a reader looks for, also where it is the default.
_ALWAYS = (
    "dataset.name",
    "dataset.split_by",
    "model.name",
    "mining.miner",
    "loss.name",
    "loss.margin",
    "batch.classes",
    "batch.per_class",
    "train.steps",
    "seed",
)
_OF_FIELDS = (
    "The main fields of its config, and those that differ from their defaults; docs/fields.md"
    " explains each."
)


def write(workdir: pathlib.Path, output: pathlib.Path, notes: Mapping[str, Any]) -> pathlib.Path:
    """Writes the page beside an exported file.

    The page is `card.md`. If the folder has the card of another file, the name of this file is put
    before it.

    Args:
      workdir: of the run.
      output: the exported file.
      notes: from `encoder_notes.notes`, with `use`: how the file is opened.

    Returns:
      The path of the page.

    Raises:
      OSError: it cannot be written.
    """
    path = output.with_name(NAME)
    if path.exists() and not path.read_text(errors="replace").startswith(_title(output)):
        path = output.with_name(f"{output.name}.{NAME}")
    files.write_text(path, page(workdir, output, notes))
    return path


def page(workdir: pathlib.Path, output: pathlib.Path, notes: Mapping[str, Any]) -> str:
    """The page; see `write`. It names what the run's folder does not tell."""
    told = _told(notes["config"])
    of_data = {n: x for n, x in told.items() if n.startswith("dataset.")}
    of_training = {n: x for n, x in told.items() if n not in of_data}
    parts = [
        f"{_title(output)}\nThe encoder of the run `{workdir.name}` at step {notes['step']}.",
        f"## Use\n\n{notes['use']}",
        f"## Inputs and embeddings\n\n{_lines(_of_towers(notes))}",
        f"## Data\n\n{_examples(workdir)}\n\n{_fields(of_data)}",
        f"## Training\n\n{_OF_FIELDS}\n\n{_fields(of_training)}",
        f"## Scores\n\n{_scores(workdir, notes)}",
        f"## Starting weights\n\n{_weights(notes['weights'])}",
        "## Versions\n\n" + ", ".join(f"{n} {version}" for n, version in notes["versions"].items()),
    ]
    return "\n\n".join(parts) + "\n"


def _title(output):
    return f"# {output.name}\n"


def _lines(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _table(names: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    def line(cells):
        return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"

    names = list(names)
    return "\n".join([line(names), line("---" for _ in names), *map(line, rows)])


# -- what it takes and gives -----------------------------------------------------------------


def _of_towers(notes):
    inputs, embedding = notes["inputs"], notes["embedding"]
    if "first" not in inputs:
        return [*_inputs(inputs), _embedding(embedding)]
    return [
        f"{tower} encoder: {line}"
        for tower in inputs
        for line in (*_inputs(inputs[tower]), _embedding(embedding[tower]))
    ]


def _inputs(inputs):
    if "shape" in inputs:
        done = "standardises them by" if inputs["standardised"] else "takes them without"
        yield f"features of shape {_by(inputs['shape'])}; the encoder {done} statistics of its own"
        return
    colours = "grey" if inputs["channels"] == 1 else f"of {inputs['channels']} channels"
    yield f"images of {_by(inputs['size'])} pixels, {colours}, with values from 0 to 1"
    mean, std = (", ".join(f"{x:g}" for x in inputs[name]) for name in ("mean", "std"))
    grey = inputs["channels"] == 1 and len(inputs["mean"]) > 1
    yield f"normalised by the mean {mean} and the deviation {std}" + (
        f"; a grey image becomes {len(inputs['mean'])} equal channels" if grey else ""
    )
    if "resample" in inputs:
        inverted = ", inverted" if inputs["invert"] else ""
        yield (
            f"pictures are made square by `{inputs['fit']}` and scaled by `{inputs['resample']}`,"
            f" and the middle {inputs['crop_ratio']:.4g} of a side is kept; transparent pixels get"
            f" the grey {inputs['background']}{inverted}"
        )


def _embedding(embedding):
    length = "of length 1" if embedding["unit_length"] else "of any length"
    changes = embedding.get("augment")
    of_copies = f", of copies changed by {' and '.join(changes)}" if changes else ""
    values = f"embeddings of {embedding['dim']} values{of_copies}"
    return f"{values}, {length}, compared by Euclidean distance"


def _by(shape):
    return " x ".join(map(str, shape))


# -- where it is from ------------------------------------------------------------------------


def _told(config):
    flat = flax.traverse_util.flatten_dict(dict(config), sep=".")
    usual = settings.flat(defaults.get_config())
    return {
        name: value
        for name, value in flat.items()
        if name in _ALWAYS or not (name.startswith(_LEFT_OUT) or _same(value, usual.get(name)))
    }


def _same(value, usual):
    if usual is None and not value:  # worked out when the run began, and off
        return True
    return value == (list(usual) if isinstance(usual, tuple) else usual)


def _fields(fields):
    return _table(("field", "value"), [(f"`{n}`", f"`{x}`") for n, x in sorted(fields.items())])


def _examples(workdir):
    try:
        labels, split = files.read_arrays(str(workdir / "embeddings.npz"), ["labels", "split"])
    except errors.InputError:
        return "How many examples there were is not known: the run was not evaluated."
    counts = collections.Counter(split.tolist())
    classes = {name: len(set(labels[split == name].tolist())) for name in counts}
    return _lines(f"{n}: {counts[n]:,} examples of {classes[n]:,} classes" for n in sorted(counts))


def _scores(workdir, notes):
    again = f"python -m experiments.evaluate --workdir={workdir.name}"
    try:
        result = files.read_json(workdir / "result.json", "protocol", "checkpoint_step")
        names, rows = score_table.rows(result)
        widths = len(names) + 1
        table = _table(("", *names), [(*row, *[""] * (widths - len(row))) for row in rows])
        measured = [f"{name.replace('_', ' ')}: {x}" for name, x in result["protocol"].items()]
        found = f"{table}\n\nWhat they were measured on:\n\n{_lines(measured)}"
        of_step, copies = result["checkpoint_step"], result["protocol"].get("augment")
    except (errors.InputError, OSError, KeyError, TypeError, AttributeError, ValueError):
        return f"There are none: the run was not evaluated. `{again}` does so."
    if of_step != notes["step"]:
        stale = f"These are of step {of_step}, not of this encoder."
        return f"{stale} `{again}` measures it.\n\n{found}"
    if copies == evaluating.copies(notes["embedding"].get("augment")).get("augment"):
        return found
    other = "by several copies of each image" if copies else "by each image as it is"
    stale = f"These are of embeddings {other}, which are not those of this file."
    if copies == evaluating.copies(notes["config"]["evaluate"].get("augment")).get("augment"):
        return f"{stale}\n\n{found}"  # as the run is judged
    return f"{stale} `{again}` measures the run as it is judged now.\n\n{found}"


def _weights(record):
    if record is None:
        return "None: it was trained from random weights."
    licence = record.get("licence") or "none is stated"
    lines = [f"source: `{record.get('source')}`", f"licence: {licence}"]
    lines.append(f"SHA-256: `{record.get('sha256')}`")
    before = record.get("weights")
    if before:
        lines.append(f"that run began with `{before.get('source')}`")
    return _lines(lines)


# -- how it is opened ------------------------------------------------------------------------


def use_of_program(output: pathlib.Path, jax_version: str) -> str:
    """How a file of `jax.export` is opened, and for how long."""
    return (
        "It needs jax and flatbuffers alone:\n\n```\nimport jax.export, pathlib\n"
        f'content = pathlib.Path("{output.name}").read_bytes()\n'
        "encoder = jax.export.deserialize(bytearray(content))\n"
        "embeddings = encoder.call(inputs)  # images of uint8 are divided by 255 inside\n```\n\n"
        "It is a program: call none from a source that you do not trust.\n\n"
        f"It was written by jax {jax_version}: {export.PROMISE}. Keep the folder of the run, or the"
        " weights by `--format=safetensors`, and export again with a newer jax."
    )


def use_of_onnx(output: pathlib.Path) -> str:
    """How a file of ONNX is opened."""
    return (
        "It needs onnxruntime alone:\n\n```\nimport onnxruntime\n"
        f'session = onnxruntime.InferenceSession("{output.name}")\n'
        '(embeddings,) = session.run(None, {"inputs": inputs})  # float32, images from 0 to 1\n'
        "```"
    )


def use_of_weights(names: str) -> str:
    """How a file of weights is opened."""
    backbone = (
        f"The backbone has the names of {names}, which open it."
        if names
        else "The backbone has names of triplet_jax, as nobody publishes it."
    )
    return (
        f"{backbone} The embedding head is `triplet_jax.head`, a linear layer. docs/own_images.md"
        " shows how torch embeds with both. The file's metadata hold what stands here, and the"
        " whole config."
    )
