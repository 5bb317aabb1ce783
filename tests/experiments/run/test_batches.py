import contextlib
import types

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from configs import digits
from experiments.config import datasets, pk_batches
from experiments.run import batches
from triplet_jax import errors
from triplet_jax.curricula import difficulty, learnability
from triplet_jax.data import batch_loading, sampling
from triplet_jax.devices import collectives
from triplet_jax.models.pixels import as_floats
from triplet_jax.training import data_parallel
from triplet_jax.training.train_state import TrainState


def step(state, inputs, labels, places):
    """Shows which examples it was given, and takes no other step."""
    rows = collectives.gather((places, labels), collectives.DEVICES)
    return state.replace(step=state.step + 1), {"rows": rows}


class Flat:
    """An encoder that takes every second pixel."""

    def apply(self, variables, inputs, project):
        assert set(variables) == {"params", "batch_stats"}
        assert project
        return inputs.reshape(len(inputs), -1)[:, ::2]


def make(**fields):
    config = digits.get_config("semi_hard")
    config.update_from_flattened_dict(
        {"train.steps": 6, "batch.classes": 8, "batch.per_class": 2, "dataset.workers": 0} | fields
    )
    config = ml_collections.FrozenConfigDict(config)
    examples, _ = datasets.training_split(config, datasets.dataset(config))

    def embed(variables, inputs):
        del variables
        return inputs

    return types.SimpleNamespace(
        config=config, examples=examples, steps={0: step}, embed=embed, trained=Flat()
    )


def start(at):
    empty = dict.fromkeys(("params", "batch_stats", "learned", "pace", "opt_state"), {})
    return data_parallel.replicate(TrainState(step=jnp.int32(at), average=None, **empty))


@pytest.mark.parametrize("placement", ["device", "stream"])
def test_a_run_that_goes_on_draws_the_batches_of_its_steps(placement):
    run = make(**{"dataset.placement": placement})
    drawn = pk_batches.draw_on_host(run.config, pk_batches.class_index(run.config, run.examples))
    with contextlib.ExitStack() as resources:
        take_step, state = batches.step_with_batches(run, 2, None, resources), start(2)
        for number in range(2, 6):
            state, metrics = take_step(state)
            places, labels = metrics["rows"]
            np.testing.assert_array_equal(places, drawn(number))
            np.testing.assert_array_equal(labels, run.examples.labels[drawn(number)])


class Mining:
    """Makes a table before steps 2 and 4, of the example that follows each."""

    def __init__(self, count):
        self.made_at, self._count = [], count

    def at_start(self, step):
        return None

    def is_due(self, step):
        return step > 0 and step % 2 == 0

    def mine(self, step, embeddings):
        assert len(embeddings) == self._count
        self.made_at.append(step)
        return np.arange(1, self._count + 1, dtype=np.int32)[:, None] % self._count


def test_tables_of_near_examples_are_made_when_they_are_due_and_drawn_from():
    run = make(**{"offline.every": 2, "offline.neighbours": 1, "offline.near": 1})
    mining, index = Mining(len(run.examples)), pk_batches.class_index(run.config, run.examples)
    with contextlib.ExitStack() as resources:
        take_step, state = batches.step_with_batches(run, 0, mining, resources), start(0)
        for number in range(6):
            state, metrics = take_step(state)
            near = Mining(len(run.examples)).mine(number, run.examples.inputs)
            table = index if number < 2 else index.beside(near)
            expected = pk_batches.draw_on_host(run.config, table)(number)
            np.testing.assert_array_equal(metrics["rows"][0], expected)
    assert mining.made_at == [2, 4]


def test_a_batch_of_learnable_classes_is_chosen_out_of_what_is_drawn(tmp_path):
    """On eight devices as by hand on one."""
    clean = datasets.dataset(digits.get_config("semi_hard"))
    count = len(clean.only("train"))
    reference = np.random.default_rng(0).normal(size=(count, 3)).astype(np.float32)
    scores = difficulty.Scores(np.zeros(count), np.zeros(10, np.int32), reference)
    difficulty.write(tmp_path / "scores.npz", scores, clean)
    fields = {"batch.scores": str(tmp_path / "scores.npz"), "batch.choose_from": 7}
    fields |= {"batch.classes": 4, "batch.strictness": 1e6, "loss.margin": 0.5}
    run = make(**fields)
    index = pk_batches.class_index(run.config, run.examples)
    with contextlib.ExitStack() as resources:
        take_step, state = batches.step_with_batches(run, 0, None, resources), start(0)
        for number in range(3):
            state, metrics = take_step(state)
            drawn = sampling.pk_batch(np, index, run.config.seed, number, classes=7, per_class=2)
            x = as_floats(jnp.asarray(run.examples.inputs[drawn])).reshape(14, -1)[:, ::2]
            both = [
                learnability.confusion(jnp.asarray(rows), per_class=2, margin=0.5)
                for rows in (x, reference[drawn])
            ]
            places = learnability.chosen(*both, classes=4, strictness=1e6, key=jax.random.key(0))
            chosen = drawn.reshape(7, 2)[np.asarray(places)].reshape(-1)
            np.testing.assert_array_equal(metrics["rows"][0], chosen)


@pytest.mark.parametrize(
    ("said", "raised", "words"),
    [
        ("Worker 1 terminated unexpectedly", errors.LostError, "set dataset.workers lower"),
        ("another defect", RuntimeError, "^another defect$"),
    ],
)
def test_a_worker_that_has_ended_is_lost_and_other_errors_stay(said, raised, words, monkeypatch):
    def stream(*given, **rest):
        raise RuntimeError(said)
        yield

    monkeypatch.setattr(batch_loading, "stream", stream)
    run = make(**{"dataset.placement": "stream"})
    with contextlib.ExitStack() as resources:
        take_step = batches.step_with_batches(run, 2, None, resources)
        with pytest.raises(raised, match=words):
            take_step(start(2))
