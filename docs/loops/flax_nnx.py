"""An embedding of handwritten digits, a module of flax.nnx, trained in a loop with optax."""

import functools
import sys

import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from triplet_jax import evaluation, losses, mining, schedules

STEPS = int(sys.argv[1]) if len(sys.argv) > 1 else 300
# The curriculum: first each anchor's median negative, in the end its nearest.
HARDNESS = schedules.between(schedules.cosine(total_steps=STEPS), start=0.5, end=1.0)


class Encoder(nnx.Module):
    def __init__(self, rngs):
        self.hidden = nnx.Linear(64, 256, rngs=rngs)
        self.output = nnx.Linear(256, 64, rngs=rngs)

    def __call__(self, images):
        rows = self.output(nnx.relu(self.hidden(images)))
        return rows / jnp.linalg.norm(rows, axis=1, keepdims=True)


def loss_of(encoder, images, labels, step):
    miner = functools.partial(mining.quantile, hardness=HARDNESS(step))
    return losses.triplet_loss(encoder(images), labels, miner=miner)


@nnx.jit
def train_step(encoder, optimizer, images, labels, step):
    (loss, stats), slopes = nnx.value_and_grad(loss_of, has_aux=True)(encoder, images, labels, step)
    optimizer.update(encoder, slopes)  # changes both in place
    return loss


images, labels = load_digits(return_X_y=True)
images, unseen, labels, unseen_labels = train_test_split(images / 16, labels, random_state=0)
encoder = Encoder(nnx.Rngs(0))
optimizer = nnx.Optimizer(encoder, optax.adam(1e-3), wrt=nnx.Param)
before = evaluation.retrieval(encoder(unseen), unseen_labels)

random = np.random.default_rng(0)
for step in range(STEPS):
    rows = random.choice(len(images), 128, replace=False)
    loss = train_step(encoder, optimizer, images[rows], labels[rows], step)
    if step % 100 == 0:
        print(f"step {step}: loss {loss:.3f}")

after = evaluation.retrieval(encoder(unseen), unseen_labels)
print(f"MAP@R {before['map_at_r']:.3f} before, {after['map_at_r']:.3f} after")
