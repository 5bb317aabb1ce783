"""The masks of a relation that is given as a matrix."""

import jax.numpy as jnp
import numpy as np
import pytest

from triplet_jax import errors
from triplet_jax.engine import relation_masks
from triplet_jax.relations import Relation

POSITIVE = np.array([[1, 1, 0, 0], [1, 0, 1, 0]], bool)
NEGATIVE = np.array([[0, 1, 1, 1], [0, 1, 0, 1]], bool)
ITSELF = jnp.array([0, -1])


def of(relation, mask=None, shown=None):
    found = relation_masks.of_relation(relation, 4, ITSELF, mask, shown)
    return found.positive.astype(int).tolist(), found.negative.astype(int).tolist()


def test_an_anchor_is_neither_and_a_positive_is_no_negative():
    relation = Relation(POSITIVE, NEGATIVE)
    assert of(relation) == ([[0, 1, 0, 0], [1, 0, 1, 0]], [[0, 0, 1, 1], [0, 1, 0, 1]])
    assert of(Relation(POSITIVE))[1] == [[0, 0, 1, 1], [0, 1, 0, 1]]


def test_hidden_anchors_and_candidates_have_and_are_none():
    relation = Relation(POSITIVE, NEGATIVE)
    found = of(relation, jnp.array([False, True]), jnp.array([False, True, True, True]))
    assert found == ([[0] * 4, [0, 0, 1, 0]], [[0] * 4, [0, 1, 0, 1]])


@pytest.mark.parametrize("negative", [NEGATIVE[:, :3], NEGATIVE.astype(float)])
def test_negatives_of_another_shape_or_type_are_refused(negative, unchecked):
    with pytest.raises(
        errors.InputError, match=r"relation.negative has .* must be booleans \(2, 4"
    ):
        of(Relation(POSITIVE, negative))
