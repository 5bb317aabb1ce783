"""Encoders as .safetensors files, whose backbone other libraries open.

The backbone is under the names that its family is published by, such as those of timm. What
surrounds it is under names of ours, which start with `triplet_jax.`: the embedding head is
`triplet_jax.head.weight` and `triplet_jax.head.bias`, of the shapes that torch gives a linear
layer, and everything else has the path that flax gives it. A backbone that nobody publishes is
under such names, too. The two encoders of `TwoTowers` have all their names after `first.` and
`second.`.
"""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from triplet_jax import errors
from triplet_jax.models import encoders, published, weight_files
from triplet_jax.runs import files

HEAD = f"{published.OWN}head"
"""What the names of the embedding head start with."""
_BACKBONE = "backbone"
_TOWERS = ("first", "second")


def write(
    path: pathlib.Path,
    encoder: nn.Module,
    variables: Mapping[str, PyTree],
    *,
    names: str = "",
    metadata: Mapping[str, Any] | None = None,
) -> str:
    """Writes the weights of an encoder.

    >>> import tempfile
    >>> model = encoders.encoder("resnet18", dim=8, width=4)
    >>> variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "encoder.safetensors"
    >>> write(file, model, variables)
    'torchvision and timm'
    >>> tensors = weight_files.read(str(file)).tensors
    >>> tensors["layer1.0.conv1.weight"].shape, tensors["triplet_jax.head.weight"].shape
    ((4, 4, 3, 3), (8, 32))

    Args:
      path: the file to write.
      encoder: an `Encoder`, or `TwoTowers` of them.
      variables: its parameters and batch statistics.
      names: the library whose names the backbone gets, such as "timm"; "" for the first that is
        known and has a place for every array.
      metadata: what the file says beside its arrays; what is no text becomes JSON.

    Returns:
      The library whose names the backbone has; "" where they are ours.

    Raises:
      InputError: the backbone is not published by these names, or the package safetensors is
        missing.
      OSError: the file cannot be written.
    """
    weight_files.check_safetensors("path", str(path))
    import safetensors.numpy

    tensors: dict[str, np.ndarray] = {}
    layout = ""
    for prefix, one, flat in _parts(encoder, variables):
        layout, found = _named(one, flat, names)
        tensors |= {prefix + name: np.ascontiguousarray(array) for name, array in found.items()}
    # transformers opens only files that name a format it knows.
    said = {"format": "pt", "names": layout or "triplet_jax"} | dict(metadata or {})
    texts = {k: x if isinstance(x, str) else files.as_json(x) for k, x in said.items()}
    with files.whole_file(path) as file:
        file.write(safetensors.numpy.save(tensors, texts))
    return layout


def read(path: pathlib.Path, encoder: nn.Module, input_shape: tuple[int, ...]) -> dict[str, PyTree]:
    """Reads what `write` wrote: the encoder's variables, bit for bit.

    Args:
      path: the file.
      encoder: as it was written; the arrays have to fit it.
      input_shape: of one input.

    Raises:
      InputError: the file cannot be read, or is of another encoder.
    """
    example = jnp.zeros((1, *input_shape))
    like = jax.eval_shape(lambda: encoder.init(jax.random.key(0), example))
    tensors = weight_files.read(str(path)).tensors
    found: dict[published.Path, Any] = {}
    for prefix, one, wanted in _parts(encoder, like):
        own = {n.removeprefix(prefix): x for n, x in tensors.items() if n.startswith(prefix)}
        read_here = _of_backbone(one, wanted, own)
        for place in sorted(wanted.keys() - read_here.keys()):
            read_here[place] = _surrounding(place, wanted[place], own, path)
        _check_left(own.keys() - {_own_name(place) for place in wanted}, path)
        tower = prefix.removesuffix(".")
        found |= {(p[0], *filter(None, [tower]), *p[1:]): x for p, x in read_here.items()}
    return flax.traverse_util.unflatten_dict(found)


def metadata(path: pathlib.Path) -> dict[str, Any]:
    """What a file says beside its arrays.

    A text that is a JSON object or list is given as that; all others, numbers too, stay texts.

    Raises:
      InputError: the file cannot be read.
    """
    texts = weight_files.metadata(str(path))
    return {name: _meant(text) for name, text in texts.items()}


def _meant(text: str) -> Any:
    try:
        return json.loads(text) if text[:1] in "{[" else text
    except ValueError:
        return text


def _parts(encoder: nn.Module, variables: Mapping[str, PyTree]):
    """Each encoder, with what its names start with and its variables by their paths in it."""
    flat = flax.traverse_util.flatten_dict(dict(variables))
    if not isinstance(encoder, encoders.TwoTowers):
        yield "", encoder, flat
        return
    for tower in _TOWERS:
        own = {(kind, *rest): x for (kind, owner, *rest), x in flat.items() if owner == tower}
        yield f"{tower}.", getattr(encoder, tower), own


def _named(encoder: nn.Module, flat: Mapping, names: str) -> tuple[str, dict[str, np.ndarray]]:
    """The names of which library are taken, and the arrays of one encoder by name."""
    found = {_own_name(p): _as_torch(p)(np.asarray(x)) for p, x in flat.items() if not _inner(p)}
    inner = {(p[0], *p[2:]): np.asarray(x) for p, x in flat.items() if _inner(p)}
    layouts = _layouts(encoder.backbone, names)
    if not layouts:
        return "", found | {_own_name(p): np.asarray(x) for p, x in flat.items() if _inner(p)}
    refused = None
    for layout in layouts:
        try:
            tensors = published.published(flax.traverse_util.unflatten_dict(inner), layout)
            return layout.name, tensors | found
        except errors.InputError as error:
            refused = refused or error
    raise refused


def _layouts(backbone: nn.Module, names: str) -> list[published.Layout]:
    """The layouts of these names; none where names are free and the backbone is not published."""
    try:
        known = backbone.layouts() if hasattr(backbone, "layouts") else ()
    except errors.InputError:
        # With this normalisation, say, nobody publishes it.
        if names:
            raise
        return []
    chosen = [one for one in known if not names or names in one.name.split(" and ")]
    if names and not chosen:
        libraries = sorted({name for one in known for name in one.name.split(" and ")})
        instead = f"Take one of {libraries}, or leave it out." if libraries else "Leave it out."
        raise errors.InputError(
            f"names={names!r}: the backbone is not published by these names. {instead}"
        )
    return chosen


def _of_backbone(encoder: nn.Module, wanted: Mapping, tensors: Mapping[str, np.ndarray]) -> dict:
    """The backbone's arrays by their paths in the encoder; none where their names are ours."""
    inner = {(p[0], *p[2:]): x for p, x in wanted.items() if _inner(p)}
    layouts = tuple(_layouts(encoder.backbone, ""))
    if not (layouts and inner) or any(_own_name(p) in tensors for p in wanted if _inner(p)):
        return {}
    filled = published.fill(flax.traverse_util.unflatten_dict(inner), tensors, layouts)
    flat = flax.traverse_util.flatten_dict(filled.variables)
    return {(p[0], _BACKBONE, *p[1:]): x for p, x in flat.items()}


def _surrounding(place: published.Path, wanted: Any, tensors: Mapping, path: pathlib.Path) -> Any:
    """One of the arrays under names of ours."""
    name = _own_name(place)
    # The form of a matrix is its own inverse.
    array = _as_torch(place)(tensors[name]) if name in tensors else None
    if array is None or array.shape != wanted.shape:
        found = "is not there" if array is None else f"has shape {array.shape}"
        raise errors.InputError(
            f"path={str(path)!r}: {name} {found}, and the encoder needs shape {wanted.shape}. Give"
            " the encoder that the file was written from."
        )
    return jnp.asarray(array)


def _check_left(names: set[str], path: pathlib.Path) -> None:
    """Refuses names of ours that the encoder has no use for."""
    left = sorted(name for name in names if name.startswith(published.OWN))
    if left:
        raise errors.InputError(
            f"path={str(path)!r}: the encoder has no place for {', '.join(left)}. Give the encoder"
            " that the file was written from."
        )


def _inner(path: published.Path) -> bool:
    """Whether an array belongs to the backbone."""
    return path[1] == _BACKBONE


def _own_name(path: published.Path) -> str:
    if path[:2] == ("params", encoders.HEAD):
        return f"{HEAD}.{'weight' if path[2] == 'kernel' else path[2]}"
    return published.OWN + ".".join(path)


def _as_torch(path: published.Path):
    """How an array under a name of ours is held there: the head's matrix as torch has it."""
    is_matrix = path == ("params", encoders.HEAD, "kernel")
    return (published.DENSE if is_matrix else published.AS_IS).published
