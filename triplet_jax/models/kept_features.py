"""Features of a frozen backbone, computed once for each image and kept on disk."""

import hashlib
import pathlib
from collections.abc import Callable

import jax
import numpy as np
from jaxtyping import Bool, Float, PyTree, UInt8

from triplet_jax import errors
from triplet_jax.data import images
from triplet_jax.devices import processes
from triplet_jax.models import encoder_parts, inference
from triplet_jax.models.encoders import Encoder
from triplet_jax.runs import files

_DIGEST = 16


def make_features(
    encoder: Encoder,
    variables: PyTree,
    *,
    folder: pathlib.Path,
    batch: int = 0,
    report: Callable[[str], None] = print,
) -> Callable[[np.ndarray | images.Images], Float[np.ndarray, "n features"]]:
    """Makes a function from inputs to their features in evaluation, which computes each once.

    A file in `folder` keeps them, by a digest of each input. The file's name is a digest of the
    compiled program of the backbone, which does what its code says to pixel values, and of its
    weights. So another backbone, code that was changed, other weights, another image or another way
    of reading it never gives features that were kept before. A new version of jax may compute them
    again. The weights are read, and the backbone is compiled, once for all calls of the function.

    Args:
      encoder: the model.
      variables: its parameters and statistics.
      folder: where the features are kept; it is made if it is missing.
      batch: how many inputs are embedded at a time; 0 chooses.
      report: what is called with a message about a damaged file.

    Returns:
      A function of inputs as `inference.make_embed` takes them. It raises OSError where the file
      cannot be written.
    """
    backbone = _of_backbone(variables)
    weights = _digest_of_weights(backbone)
    # Kept for each shape of an input: tracing takes longer than reading a few features.
    programs: dict[tuple[int, ...], tuple[bytes, int]] = {}
    embed = inference.make_embed(encoder_parts.BackboneOf(encoder), batch=batch)

    def features(inputs: np.ndarray | images.Images) -> Float[np.ndarray, "n features"]:
        digests = _digests(inputs)
        shape = inputs.shape[1:]
        if shape not in programs:
            programs[shape] = _program(encoder, backbone, shape)
        program, dim = programs[shape]
        path = folder / f"{hashlib.sha256(program + weights).hexdigest()[:32]}.npz"
        kept, found = _read_in_first(path, digests, dim, report)
        missing = np.flatnonzero(~kept)
        if len(missing):
            found[missing] = embed(backbone, inputs[missing])
            processes.first_does(lambda: _write(path, digests, found))
        return found

    return features


def _program(encoder: Encoder, variables: PyTree, shape: tuple[int, ...]) -> tuple[bytes, int]:
    """A digest of what is computed from an input of this shape, and how many features that gives.

    The text of the program has no names of files and no addresses. Unlike the text of the module,
    it changes with the code of the backbone, and not with the place of a function in memory.
    """
    example = jax.ShapeDtypeStruct((1, *shape), np.float32)
    # Shapes alone, so that the text does not say on which devices the weights are.
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), variables)
    lowered = jax.jit(encoder_parts.BackboneOf(encoder).apply).lower(like, example)
    return hashlib.sha256(lowered.as_text().encode()).digest(), lowered.out_info.shape[1]


def _of_backbone(variables: PyTree) -> PyTree:
    """The variables without those of the head."""
    names = {"backbone", "features"}
    return {
        kind: {name: x for name, x in group.items() if name in names}
        for kind, group in variables.items()
    }


def _digest_of_weights(variables: PyTree) -> bytes:
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
        array = np.ascontiguousarray(jax.device_get(leaf))
        digest.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.digest()


def _digests(inputs: np.ndarray | images.Images) -> UInt8[np.ndarray, "n 16"]:
    if isinstance(inputs, images.Images):
        every = map(inputs.digest, range(len(inputs)))
    else:
        every = (
            hashlib.blake2b(np.ascontiguousarray(row).tobytes(), digest_size=_DIGEST).digest()
            for row in inputs
        )
    return np.frombuffer(b"".join(every), np.uint8).reshape(len(inputs), _DIGEST)


def _read_in_first(
    path: pathlib.Path,
    digests: UInt8[np.ndarray, "rows 16"],
    dim: int,
    report: Callable[[str], None],
) -> tuple[Bool[np.ndarray, "rows"], Float[np.ndarray, "rows dim"]]:
    """Which inputs are kept, and their features; zeros for the others."""
    nothing = np.zeros(len(digests), bool), np.zeros((len(digests), dim), np.float32)

    def read():
        keys, values = _read(path, dim, report)
        places = {key.tobytes(): i for i, key in enumerate(keys)}
        at = np.array([places.get(digest.tobytes(), -1) for digest in digests], np.int64)
        kept, found = at >= 0, np.zeros((len(digests), dim), np.float32)
        found[kept] = values[at[kept]]
        return kept, found

    return processes.first_reads(read, like=nothing)


def _read(path, dim, report):
    """The digests and features in the file; none where it is missing or damaged."""
    if path.exists():
        try:
            keys, values = files.read_arrays(str(path), ("digests", "features"))
            if keys.shape == (len(values), _DIGEST) and values.shape[1:] == (dim,):
                return keys, values
            why = "its arrays have other shapes"
        except errors.InputError as error:
            why = str(error)
        report(f"warning: {path} is damaged, so all features are computed again: {why}")
    return np.zeros((0, _DIGEST), np.uint8), np.zeros((0, dim), np.float32)


def _write(path, digests, features):
    """Adds the features to those in the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Read again, since another run may have added to it meanwhile.
    keys, values = _read(path, features.shape[1], lambda _: None)
    keys, values = np.concatenate([digests, keys]), np.concatenate([features, values])
    _, first = np.unique(keys, axis=0, return_index=True)
    files.write_arrays(path, digests=keys[first], features=values[first])
