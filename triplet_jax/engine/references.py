"""The references of a loss: rows that a batch is compared with in place of its own."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped

from triplet_jax import arguments, errors
from triplet_jax.devices import collectives
from triplet_jax.relations import Relation


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class References:
    """Rows that a batch is compared with in place of its own: proxies, a memory, the other tower.

    A pytree, so that it may be passed through `jax.jit`. The gradient reaches `embeddings`.

    Example:
      >>> import jax.numpy as jnp
      >>> from triplet_jax import losses
      >>> memory = losses.References(jnp.array([[0.0], [3.0]]), [0, 1], shared=True)
      >>> loss, stats = losses.triplet_loss(jnp.array([[2.0]]), [0], references=memory)
      >>> print(f"{loss:.1f}: the positive at distance {stats['mean_d_ap']:.0f}")
      0.0: the positive at distance 0
    """

    embeddings: Shaped[Array | np.ndarray, "references dim"]
    labels: arguments.Labels = None
    """Their classes, a list or an array `[references]`; None beside a `relations.Relation`."""
    mask: Bool[Array | np.ndarray, "references"] | None = None
    """Which of them count; None for all."""
    shared: bool = dataclasses.field(default=False, metadata={"static": True})
    """Whether every device has all references, as with proxies or a memory. If not, each device has
    its own part of them."""
    own: Int[Array | np.ndarray, "batch"] | None = None
    """For every row of the batch, the place of the reference that is the same example, embedded in
    some other way; -1 for none. It has the row's class, but is no positive of the row. Places count
    on through the devices' parts. None if no reference is such an example."""


def of_arguments(
    references: Shaped[Array | np.ndarray, "references dim"] | References | None,
    reference_labels: arguments.Labels | None,
    relation: Relation | None,
) -> References | None:
    """The references of a public loss, which takes an array and its labels, or both in one.

    Raises:
      InputError: an array comes without labels, or labels without an array, beside `References` or
        beside a relation.
    """
    if relation is not None:
        return _related(references, reference_labels)
    if isinstance(references, References):
        if reference_labels is not None:
            raise errors.InputError(
                "reference_labels are given beside references=References(...), which holds its own"
                " labels: leave reference_labels out."
            )
        if references.labels is None:
            raise errors.InputError("references=References(...) has no labels: give them.")
        return references
    if (references is None) != (reference_labels is None):
        raise errors.InputError("references and reference_labels are given together or not at all.")
    return None if references is None else References(references, reference_labels)


def _related(
    references: Shaped[Array | np.ndarray, "references dim"] | References | None,
    reference_labels: arguments.Labels | None,
) -> References | None:
    """References whose classes nobody asks for, since a relation says which are positives."""
    if references is None or isinstance(references, References):
        found = references
    else:
        found = References(references)
    if reference_labels is not None or (found is not None and found.labels is not None):
        raise errors.InputError(
            "labels=Relation(...) says which references are positives: leave their labels out."
        )
    return found


def checked(
    references: References, embeddings: Float[Array, "batch dim"], axis_name: str | None
) -> References:
    """The references as arrays of jax, if they may be compared with the embeddings.

    Raises:
      InputError: an array is refused by `arguments`, has no rows, or has another number of columns
        than the embeddings, or `own` is not one whole number for each row of the batch, or is known
        to name a place past the last reference.
    """
    rows = arguments.rows("references", references.embeddings)
    labels = references.labels
    if labels is not None:
        labels = arguments.class_numbers("reference_labels", labels, len(rows))
    mask = arguments.mask("references.mask", references.mask, len(rows))
    arguments.check_same_dim(embeddings=embeddings, references=rows)
    if not len(rows):
        raise errors.InputError("references have no rows: pass at least one.")
    places = len(rows) * (1 if references.shared else collectives.count(axis_name))
    own = None if references.own is None else _own(references.own, len(embeddings), places)
    return References(rows, labels, mask, references.shared, own)


def _own(given: Int[Array | np.ndarray, "batch"], rows: int, places: int) -> Int[Array, "batch"]:
    """The places of the batch's examples among the references, as an array of jax."""
    found = jnp.asarray(given)
    if found.shape != (rows,) or not jnp.issubdtype(found.dtype, jnp.integer):
        raise errors.InputError(
            f"references.own has shape {found.shape} and dtype {found.dtype}: it must be whole"
            f" numbers [{rows}], for each row of the batch the place of a reference, or -1."
        )
    # jax would take the last reference for a place past it. A traced place is not known.
    if isinstance(given, np.ndarray) and given.max() >= places:
        raise errors.InputError(
            f"references.own names the place {given.max()}, and the {places} references have places"
            f" from 0 to {places - 1}; -1 says that a row is none of them."
        )
    return found
