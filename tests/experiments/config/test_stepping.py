"""From config fields to the first state and the step."""

import numpy as np
import pytest

from configs import digits
from experiments.config import check, encoders, objective, stepping
from tests.support.configs import config
from triplet_jax.training import data_parallel


def test_proxies_and_memory_are_of_the_size_that_the_loss_sees():
    head = {"model__projection": 8, "model__projection_dim": 5, "model__name": "mlp"}
    made = config(loss__name="arcface", loss__metric="cosine", loss__proxies="references", **head)
    check.check(made)
    assert objective.learned(made)["proxies"].shape == (10, 5)
    made = config(memory__size=200, **head)
    state = stepping.initial_state(made, encoders.encoder(made, (8, 8, 1)), (8, 8, 1))
    assert state.memory.embeddings.shape == (200, 5)


@pytest.mark.parametrize(
    ("variant", "knob"),
    [("nt_xent", "temperature"), pytest.param("circle", "scale", marks=pytest.mark.slow)],
)
def test_a_learned_temperature_survives_any_learning_rate(variant, knob):
    made = digits.get_config(variant)
    made.update_from_flattened_dict(
        {"loss.learned": (knob,), "optimizer.learning_rate": 100.0, "model.name": "mlp"}
        | {"model.norm": "group", "model.width": 8, "model.dim": 4, "log.telemetry_every": 0}
    )
    check.check(made)
    shape = (8, 8, 1)
    encoder = encoders.encoder(made, shape)
    state = stepping.initial_state(made, encoder, shape)
    step = data_parallel.streamed(stepping.step(made, encoder, augment=None))
    pixels = np.random.default_rng(0).integers(0, 255, (8, 2, *shape)).astype(np.uint8)
    labels, places = np.arange(16).reshape(8, 2) // 4, np.arange(16).reshape(8, 2)
    for _ in range(5):
        state, metrics = step(state, pixels, labels, places)
        assert 0 < float(metrics[f"learned_{knob}"]) < np.inf
        assert np.isfinite(float(metrics["loss"]))
    assert float(metrics[f"learned_{knob}"]) != made.loss.knobs[knob]
