import functools
import multiprocessing
import os
import subprocess
import threading

import hypothesis
import hypothesis.strategies as st
import jax
import jax.extend.random
import jax.numpy as jnp
import numpy as np
import pytest

from triplet_jax import data, errors
from triplet_jax.data import batch_loading, sampling
from triplet_jax.devices import signals


def dataset(labels):
    labels = np.asarray(labels, np.int32)
    return data.Dataset(
        inputs=np.arange(len(labels), dtype=np.float32)[:, None],
        labels=labels,
        split=np.full(len(labels), "train"),
        class_names=tuple(f"class {c}" for c in range(labels.max() + 1)),
    )


@hypothesis.given(seed=st.integers(0, 2**32 - 1), step=st.integers(0, 2**32 - 1))
def test_random_bits_are_those_of_jax(seed, step):
    key = np.array([seed, step], np.uint32)
    for stream in (sampling.CLASS_STREAM, sampling.IMAGE_STREAM):
        counter = np.concatenate([np.full(5, stream), np.arange(5)]).astype(np.uint32)
        expected = jax.extend.random.threefry_2x32(key, counter)[:5]
        np.testing.assert_array_equal(sampling.random_bits(np, key, stream, 5), expected)


def test_random_bits_give_the_known_answer():
    zero = np.uint32(0)
    assert sampling.random_bits(np, (zero, zero), 0, 1)[0] == 0x6B200159


@hypothesis.given(
    seed=st.integers(0, 2**31 - 1),
    step=st.integers(0, 2**31 - 1),
    counts=st.lists(st.integers(1, 9), min_size=2, max_size=8),
    per_class=st.integers(2, 6),
)
def test_batches_are_p_classes_with_k_images_each(seed, step, counts, per_class):
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    index = sampling.class_index(labels)
    classes = max(2, len(counts) - 1)
    picked = sampling.pk_batch(np, index, seed, step, classes=classes, per_class=per_class)
    rows = picked.reshape(classes, per_class)
    found = labels[rows]
    assert (found == found[:, :1]).all()
    assert len(set(found[:, 0])) == classes
    for row, label in zip(rows, found[:, 0], strict=True):
        if counts[label] >= per_class:
            assert len(set(row)) == per_class


@hypothesis.given(seed=st.integers(0, 2**31 - 1), step=st.integers(0, 2**31 - 1))
def test_numpy_and_jax_draw_the_same_batch(seed, step):
    index = sampling.class_index(np.random.default_rng(0).integers(0, 20, 200))
    host = sampling.pk_batch(np, index, seed, step, classes=8, per_class=4)
    device = _compiled(jax.tree.map(jnp.asarray, index), seed, step)
    np.testing.assert_array_equal(host, device)


_compiled = jax.jit(
    lambda index, seed, step: sampling.pk_batch(jnp, index, seed, step, classes=8, per_class=4)
)


def many_batches(index, seed, steps, **settings):
    """Those of jax, which are those of numpy, in one call."""
    draw = jax.vmap(functools.partial(sampling.pk_batch, jnp, **settings), (None, None, 0))
    return np.asarray(jax.jit(draw)(jax.tree.map(jnp.asarray, index), seed, np.arange(steps)))


def test_every_image_of_every_class_is_drawn_equally_often():
    labels = np.repeat(np.arange(5), [3, 5, 8, 4, 6])
    index = sampling.class_index(labels)
    drawn = np.ravel(many_batches(index, 0, 6000, classes=2, per_class=3))
    # A class comes in 2 of 5 batches, an image in 3 / count of those.
    expected = 6000 * 2 / 5 * 3 / np.bincount(labels)[labels]
    counts = np.bincount(drawn, minlength=len(labels))
    assert (np.abs(counts - expected) < 5 * np.sqrt(expected)).all()


def test_pairs_of_images_are_drawn_equally_often():
    index = sampling.class_index(np.repeat([0, 1], 5))
    pairs: dict[tuple, int] = {}
    for batch in many_batches(index, 1, 4000, classes=2, per_class=2):
        for row in np.sort(batch.reshape(2, 2), axis=1):
            pairs[tuple(row)] = pairs.get(tuple(row), 0) + 1
    assert len(pairs) == 20
    assert all(abs(count - 400) < 100 for count in pairs.values())


def test_batches_differ_between_steps_and_seeds():
    index = sampling.class_index(np.repeat(np.arange(50), 4))
    batches = {
        tuple(sampling.pk_batch(np, index, seed, step, classes=4, per_class=2))
        for seed in range(5)
        for step in range(20)
    }
    assert len(batches) == 100


def test_classes_need_not_be_numbered_from_zero():
    index = sampling.class_index(np.array([7, 3, 7, 3, 9, 9]))
    picked = sampling.pk_batch(np, index, 0, 0, classes=3, per_class=2)
    assert sorted(picked) == [0, 1, 2, 3, 4, 5]


def drawing(index):
    return functools.partial(_draw, index)


def _draw(index, step):  # of the module, as other processes have to find it
    return sampling.pk_batch(np, index, 3, step, classes=4, per_class=2)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_gives_the_batches_of_its_steps(workers):
    examples = dataset(np.repeat(np.arange(6), 5))
    index = sampling.class_index(examples.labels)
    stream = batch_loading.stream(examples, drawing(index), first_step=2, steps=6, workers=workers)
    batches = list(stream)
    assert len(batches) == 4
    for step, (inputs, labels, places) in enumerate(batches, start=2):
        picked = sampling.pk_batch(np, index, 3, step, classes=4, per_class=2)
        np.testing.assert_array_equal(places, picked)
        np.testing.assert_array_equal(inputs, examples.inputs[picked])
        np.testing.assert_array_equal(labels, examples.labels[picked])


@pytest.mark.slow
def test_what_loads_a_stream_goes_on_when_all_processes_are_asked_to_stop():
    examples = dataset(np.repeat(np.arange(6), 5))
    draw = drawing(sampling.class_index(examples.labels))
    before = multiprocessing.active_children()
    stream = batch_loading.stream(examples, draw, first_step=0, steps=40, workers=2)
    next(stream), next(stream)  # one of each worker, so that both have started
    workers = [p for p in multiprocessing.active_children() if p not in before]
    assert len(workers) == 2
    for number in signals.SIGNALS:
        for worker in workers:
            os.kill(worker.pid, number)
    assert len(list(stream)) == 38
    stream.close()
    assert not [p for p in multiprocessing.active_children() if p not in before]


def test_a_stream_whose_worker_is_killed_as_it_starts_ends_rather_than_waits():
    examples = dataset(np.repeat(np.arange(100), 1_000))  # more than a pipe holds
    draw = drawing(sampling.class_index(examples.labels))
    kill = ["pkill", "-KILL", "-P", str(os.getpid()), "-f", "spawn_main"]

    def kill_the_first():
        while subprocess.run(kill, check=False).returncode:
            pass

    killer = threading.Thread(target=kill_the_first)
    killer.start()
    stream = batch_loading.stream(examples, draw, first_step=0, steps=9, workers=1)
    with pytest.raises(RuntimeError, match="terminated unexpectedly"):
        next(stream)
    killer.join()


def test_hosts_share_a_batch():
    examples = dataset(np.repeat(np.arange(6), 5))
    draw = drawing(sampling.class_index(examples.labels))
    stream = functools.partial(
        batch_loading.stream, examples, draw, first_step=0, steps=3, workers=0
    )
    whole = list(stream())
    halves = [list(stream(shard=i, shards=2)) for i in range(2)]
    for step in range(3):
        joined = np.concatenate([half[step][1] for half in halves])
        np.testing.assert_array_equal(joined, whole[step][1])


SMALL = [0] * 5 + [1] * 2 + [2] * 6 + [3] * 3


def test_small_classes_are_named_and_refused():
    with pytest.raises(errors.InputError, match=r"2 of 4 training classes.*'class 1' \(2\)"):
        sampling.fit_classes(dataset(SMALL), classes=2, per_class=4, small_classes="refuse")


@pytest.mark.parametrize(
    ("labels", "advice"),
    [([0, 0, 0, 1, 1], r"Set per_class=2, or small_classes='drop' to"), ([0, 0, 1], "Set small_")],
)
def test_the_advice_for_small_classes_helps(labels, advice):
    with pytest.raises(errors.InputError, match=rf"\. {advice}"):
        sampling.fit_classes(
            dataset(np.array(labels)), classes=2, per_class=len(labels) - 1, small_classes="refuse"
        )


def test_small_classes_can_be_dropped_or_redrawn():
    fit = {"classes": 2, "per_class": 4}
    dropped = sampling.fit_classes(dataset(SMALL), small_classes="drop", **fit)
    assert set(dropped.labels) == {0, 2}
    redrawn = sampling.fit_classes(dataset(SMALL), small_classes="redraw", **fit)
    assert len(redrawn) == len(SMALL)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"classes": 5, "per_class": 2}, "classes=5 is more than the 4 training classes"),
        ({"classes": 1, "per_class": 2}, "classes=1 must be at least 2"),
        ({"classes": 2, "per_class": 1}, "per_class=1 must be at least 2"),
    ],
)
def test_batches_that_cannot_be_filled_are_refused(settings, message):
    with pytest.raises(errors.InputError, match=message):
        sampling.fit_classes(dataset(SMALL), small_classes="refuse", **settings)


def test_too_few_classes_left_after_dropping_are_refused():
    with pytest.raises(errors.InputError, match="classes=3 is more than the 2 training"):
        sampling.fit_classes(dataset(SMALL), classes=3, per_class=4, small_classes="drop")


LABELS = np.repeat(np.arange(12), 10)
RANK = np.random.default_rng(0).random(120)
GROUPS = np.arange(12) % 3


def test_a_pool_holds_the_first_of_every_class():
    index = sampling.class_index(LABELS, rank=RANK)
    for pool, size in ((0.0, 3), (0.25, 3), (0.45, 5), (1.0, 10)):
        settings = {"classes": 6, "per_class": 3, "pool": pool}
        seen = [sampling.pk_batch(np, index, 0, step, **settings) for step in range(300)]
        drawn = np.unique(np.concatenate(seen))
        for c in range(12):
            members = np.flatnonzero(c == LABELS)
            easiest = members[np.argsort(RANK[members])][:size]
            assert set(drawn[LABELS[drawn] == c]) == set(easiest)


def test_batches_of_one_group_fill_up_group_after_group():
    index = sampling.class_index(LABELS, groups=GROUPS)
    settings = {"classes": 6, "per_class": 2}
    counts = []
    for step in range(200):
        batch = sampling.pk_batch(np, index, 1, step, same_group=1.0, **settings)
        classes = np.unique(LABELS[batch])
        assert len(classes) == 6
        counts.append(sorted(np.bincount(GROUPS[classes], minlength=3)))
    assert all(count == [0, 2, 4] for count in counts)  # four classes a group
    mixed = [
        len(set(GROUPS[LABELS[sampling.pk_batch(np, index, 1, step, same_group=0.3, **settings)]]))
        for step in range(1000)
    ]
    # Of the batches that are not grouped, a few come from two groups by chance.
    by_chance = 3 * 28 / 924
    assert np.mean(np.array(mixed) == 2) == pytest.approx(0.3 + 0.7 * by_chance, abs=0.05)


@hypothesis.given(pool=st.floats(0, 1), same_group=st.floats(0, 1), step=st.integers(0, 10**6))
def test_pools_and_groups_are_drawn_alike_on_host_and_device(pool, same_group, step):
    index = sampling.class_index(LABELS, rank=RANK, groups=GROUPS)
    settings = {"classes": 6, "per_class": 3}
    moved = {"pool": np.float32(pool), "same_group": np.float32(same_group)}
    host = sampling.pk_batch(np, index, 7, step, **settings, **moved)
    np.testing.assert_array_equal(host, DEVICE_DRAW(index, step, **moved))


DEVICE_DRAW = jax.jit(
    lambda index, step, **moved: sampling.pk_batch(
        jnp, index, 7, step, classes=6, per_class=3, **moved
    )
)
