"""An embedding of handwritten digits, a module of equinox, trained in a loop with optax."""

import functools
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from triplet_jax import evaluation, losses, mining, schedules

STEPS = int(sys.argv[1]) if len(sys.argv) > 1 else 300
OPTIMIZER = optax.adam(1e-3)
# The curriculum: first each anchor's median negative, in the end its nearest.
HARDNESS = schedules.between(schedules.cosine(total_steps=STEPS), start=0.5, end=1.0)


def embed(encoder, images):
    rows = jax.vmap(encoder)(images)  # modules of equinox take one example
    return rows / jnp.linalg.norm(rows, axis=1, keepdims=True)


def loss_of(encoder, images, labels, step):
    miner = functools.partial(mining.quantile, hardness=HARDNESS(step))
    return losses.triplet_loss(embed(encoder, images), labels, miner=miner)


@eqx.filter_jit
def train_step(encoder, state, images, labels, step):
    grad = eqx.filter_value_and_grad(loss_of, has_aux=True)
    (loss, stats), slopes = grad(encoder, images, labels, step)
    updates, state = OPTIMIZER.update(slopes, state)
    return eqx.apply_updates(encoder, updates), state, loss


images, labels = load_digits(return_X_y=True)
images, unseen, labels, unseen_labels = train_test_split(images / 16, labels, random_state=0)
encoder = eqx.nn.MLP(64, 64, width_size=256, depth=1, key=jax.random.key(0))
state = OPTIMIZER.init(eqx.filter(encoder, eqx.is_array))
before = evaluation.retrieval(embed(encoder, unseen), unseen_labels)

random = np.random.default_rng(0)
for step in range(STEPS):
    rows = random.choice(len(images), 128, replace=False)
    # As an array, since filter_jit compiles again for each number of Python.
    now = jnp.int32(step)
    encoder, state, loss = train_step(encoder, state, images[rows], labels[rows], now)
    if step % 100 == 0:
        print(f"step {step}: loss {loss:.3f}")

after = evaluation.retrieval(embed(encoder, unseen), unseen_labels)
print(f"MAP@R {before['map_at_r']:.3f} before, {after['map_at_r']:.3f} after")
