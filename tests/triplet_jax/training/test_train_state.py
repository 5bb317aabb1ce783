import jax
import numpy as np

from triplet_jax.training import cross_batch_memory, label_filter
from triplet_jax.training.train_state import TrainState

FIELDS = {"step", "params", "batch_stats", "learned", "pace", "opt_state", "average"}


def make(**fields):
    usual = {"step": 3, "params": {"w": np.ones(2)}, "batch_stats": {}, "learned": {}, "pace": {}}
    return TrainState(**usual | {"opt_state": np.zeros(2), "average": None} | fields)


def names(state):
    """Of the fields that a checkpoint has entries for, whether they hold arrays or not."""
    below = jax.tree_util.tree_flatten_with_path(state, is_leaf=lambda x: x is not state)[0]
    return {path[0].name for path, _ in below}


def test_a_state_without_memory_has_the_fields_of_checkpoints_that_know_of_none():
    assert names(make()) == FIELDS
    memory = cross_batch_memory.empty(4, 2)
    assert names(make(memory=memory)) == FIELDS | {"memory"}
    thresholds = label_filter.first_thresholds(5)
    assert names(make(memory=memory, thresholds=thresholds)) == FIELDS | {"memory", "thresholds"}


def test_a_state_keeps_its_fields_through_a_tree():
    for memory in (None, cross_batch_memory.empty(4, 2)):
        state = make(memory=memory)
        twice = jax.tree.map(lambda x: 2 * x, state)
        assert twice.step == 6 and twice.average is None
        np.testing.assert_array_equal(twice.params["w"], 2 * state.params["w"])
        assert (twice.memory is None) == (memory is None)


def test_a_state_is_evaluated_by_its_average_if_there_is_one():
    plain = make()
    assert plain.variables["params"] is plain.params
    averaged = make(average={"w": np.zeros(2)})
    assert averaged.variables["params"] is averaged.average
