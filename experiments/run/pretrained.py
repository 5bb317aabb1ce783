"""The weights that a run starts from: of a file of published weights, or of another run.

`weights.json` in the run's folder says where they came from. A checkpoint holds the weights
themselves, so that a run that has one never needs the file again.
"""

import collections
import pathlib
from typing import Any, NamedTuple

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import ml_collections

from experiments.config import naming
from experiments.run import other_run
from triplet_jax import errors
from triplet_jax.devices import processes
from triplet_jax.models import hub, published, weight_files
from triplet_jax.runs import files

FILE = "weights.json"


class Given(NamedTuple):
    """Arrays that take the place of random ones in an encoder."""

    variables: dict[str, Any]
    """Nested as the encoder's; it holds nothing that stays random."""
    record: dict[str, Any] | None
    """What `weights.json` says of them; None in any process but the first, and without weights."""


NOTHING = Given({}, None)


def given(
    config: ml_collections.FrozenConfigDict, encoder: nn.Module, input_shape: tuple[int, ...]
) -> Given:
    """The arrays that a new run starts from, as `model.weights` or `model.init_from` says.

    Args:
      config: of the run.
      encoder: its model.
      input_shape: of one input.

    Raises:
      InputError: the weights cannot be read, or do not fit the encoder.
      LostError: the Hugging Face Hub cannot be reached.
    """
    if not config.model.weights and not config.model.init_from:
        return NOTHING
    example = jnp.zeros((1, *input_shape))
    shapes = jax.eval_shape(encoder.init, jax.random.key(0), example)
    if config.model.init_from:
        with _naming("model.init_from", config.model.init_from):
            return Given(*other_run.start(config, shapes, FILE))
    backbones = {
        tower: {
            kind: part["backbone"]
            for kind, part in _of_tower(shapes, tower).items()
            if "backbone" in part
        }
        for tower in _towers(config)
    }
    kept: list[dict[str, Any]] = []

    def read():
        with _naming("model.weights", config.model.weights):
            variables, record = _published(config, encoder, backbones)
        kept.append(record)
        return variables

    found = processes.first_reads(read, like=backbones)
    flat = {}
    # On the host: the state holds a copy on the device.
    for tower, of_kinds in jax.device_get(found).items():
        for kind, tree in of_kinds.items():
            flat[(kind, *filter(None, [tower]), "backbone")] = tree
    return Given(flax.traverse_util.unflatten_dict(flat), kept[0] if kept else None)


def find(config: ml_collections.FrozenConfigDict) -> None:
    """Looks for the weights of a new run, before its data are read; downloads them if need be.

    Raises:
      InputError: they are not there.
      LostError: the Hugging Face Hub cannot be reached.
    """
    if config.model.weights:
        with _naming("model.weights", config.model.weights):
            processes.first_does(lambda: _advising(weight_files.find, config.model.weights))
    if config.model.init_from:
        with _naming("model.init_from", config.model.init_from):
            other_run.find(config)


def _towers(config):
    """The names of the encoders among the variables; one alone has no name."""
    return ("",) if config.model.towers == 1 else ("first", "second")


def _of_tower(variables, tower):
    return {kind: tree.get(tower, {}) if tower else tree for kind, tree in variables.items()}


def _naming(field, value):
    """Puts the field before a message that begins with no field."""

    def named(message):
        message = naming.in_fields(message, "model")
        return message if message.startswith("model.") else f"{field}={value!r}: {message}"

    return naming.rewriting(named)


# -- published weights -------------------------------------------------------------------


def _published(config, encoder, backbones):
    """The variables of each tower's backbone, and what `weights.json` says of them."""
    read = _advising(weight_files.read, config.model.weights)
    variables = {}
    for tower, shapes in backbones.items():
        backbone = (getattr(encoder, tower) if tower else encoder).backbone
        if not hasattr(backbone, "layouts"):
            raise errors.InputError(
                f"model.name={config.model.name!r} is a backbone without published weights: leave"
                " model.weights out, or take another backbone, such as 'resnet18'."
            )
        filled = published.fill(shapes, read.tensors, backbone.layouts())
        variables[tower] = filled.variables
    record = {
        "source": read.source,
        "sha256": read.sha256,
        "licence": read.licence,
        "layout": filled.layout,
        "arrays": len(read.tensors) - len(filled.left_out),
        "left_out": list(filled.left_out),
    }
    return variables, record


def _advising(read, weights):
    """Reads weights; of a pickle it says how to convert it, of a lost Hub what trains without."""
    try:
        return read(weights)
    except errors.LostError as error:
        raise errors.LostError(f"{error} {_WITHOUT}") from error
    except weight_files.PickleError as error:
        output = pathlib.Path(weights).with_suffix(weight_files.SUFFIX)
        raise errors.InputError(
            f"{error} python -m experiments.convert --input={weights} --output={output}"
        ) from error


_WITHOUT = (
    "docs/pretrained.md says where files come from without the Hub. Without weights,"
    " --config=configs/folder.py trains a small network."
)


# -- what a run's folder keeps -----------------------------------------------------------


def remember(workdir: pathlib.Path, record: dict[str, Any] | None) -> None:
    """Writes `weights.json` of a run without checkpoints.

    Args:
      workdir: of the run.
      record: of `Given`; None writes nothing.

    Raises:
      InputError: the run began with other weights.
    """
    if record is None:
        return
    before = recorded(workdir)
    if before is not None and before.get("sha256") != record["sha256"]:
        raise errors.InputError(
            f"--workdir={workdir} holds a run that began with other weights: their SHA-256 was"
            f" {before.get('sha256')}, and is {record['sha256']} now. Put the weights back, or give"
            " another --workdir."
        )
    files.write_json(workdir / FILE, record)


def recorded(workdir: pathlib.Path) -> dict[str, Any] | None:
    """What `weights.json` of a run says; None where it began with random weights.

    Raises:
      InputError: the file is damaged.
    """
    path = workdir / FILE
    return files.read_json(path) if path.exists() else None


def describe(record: dict[str, Any]) -> str:
    """Says in a few words what a new run starts from, and what it leaves out."""
    stated = record.get("licence")
    licence = f", licence {stated}" if stated else ", no licence stated"
    left_out = _listed(record["left_out"])
    if "step" in record:
        return f"{record['source']} at step {record['step']}{licence}; {record['head']}"
    return (
        f"{record['source']}, {record['arrays']} arrays by the names of {record['layout']}{licence}"
        + (f"; left out on purpose: {left_out}" if left_out else "")
    )


def _listed(names, most=6):
    """The names; many that end alike are counted together."""
    ends = collections.Counter(name.rpartition(".")[2] for name in names)
    shown = dict.fromkeys(
        f"{ends[end]} x *.{end}" if ends[end] > 3 else name
        for name in names
        if (end := name.rpartition(".")[2])
    )
    more = f" and {len(shown) - most} more" if len(shown) > most else ""
    return ", ".join([*shown][:most]) + more


def note(workdir: pathlib.Path, config: ml_collections.FrozenConfigDict) -> str:
    """A warning where a run goes on beside another file of weights than it began with; else empty.

    The run keeps its own weights, which are in its checkpoints. A file that is gone is no change.
    """
    path, before = pathlib.Path(config.model.weights), recorded(workdir)
    if not config.model.weights or hub.is_address(config.model.weights) or before is None:
        return ""
    if not path.is_file() or files.sha256(path) == before.get("sha256"):
        return ""
    return (
        f"warning: model.weights={config.model.weights!r} is another file than when this run began."
        " The run goes on with its own weights, from its checkpoint."
    )
