"""The plain loop over all devices, by `jax.shard_map` around the loss."""

import functools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from triplet_jax import evaluation, losses, mining, schedules

STEPS = int(sys.argv[1]) if len(sys.argv) > 1 else 300
OPTIMIZER = optax.adam(1e-3)
MESH = jax.make_mesh((jax.device_count(),), ("devices",), (jax.sharding.AxisType.Auto,))
SPECS = (jax.P(), jax.P("devices"), jax.P("devices"), jax.P())
# The curriculum: first each anchor's median negative, in the end its nearest.
HARDNESS = schedules.between(schedules.cosine(total_steps=STEPS), start=0.5, end=1.0)


def embed(params, images):
    rows = jax.nn.relu(images @ params["hidden"]) @ params["output"]
    return rows / jnp.linalg.norm(rows, axis=1, keepdims=True)


@functools.partial(jax.shard_map, mesh=MESH, in_specs=SPECS, out_specs=jax.P())
def loss_of(params, images, labels, step):
    # The hardness is traced: it moves, and nothing is compiled again.
    miner = functools.partial(mining.quantile, hardness=HARDNESS(step))
    return losses.triplet_loss(embed(params, images), labels, miner=miner, axis_name="devices")


@jax.jit
def train_step(params, state, images, labels, step):
    (loss, stats), slopes = jax.value_and_grad(loss_of, has_aux=True)(params, images, labels, step)
    updates, state = OPTIMIZER.update(slopes, state, params)
    return optax.apply_updates(params, updates), state, loss


images, labels = load_digits(return_X_y=True)
images, unseen, labels, unseen_labels = train_test_split(images / 16, labels, random_state=0)
he, keys = jax.nn.initializers.he_normal(), jax.random.split(jax.random.key(0))
params = {"hidden": he(keys[0], (64, 256)), "output": he(keys[1], (256, 64))}
state = OPTIMIZER.init(params)
before = evaluation.retrieval(embed(params, unseen), unseen_labels)

random = np.random.default_rng(0)
for step in range(STEPS):
    rows = random.choice(len(images), 128, replace=False)
    params, state, loss = train_step(params, state, images[rows], labels[rows], step)
    loss.block_until_ready()  # simulated devices can stop for ever in several steps at once
    if step % 100 == 0:
        print(f"step {step}: loss {loss:.3f}")

after = evaluation.retrieval(embed(params, unseen), unseen_labels)
print(f"MAP@R {before['map_at_r']:.3f} before, {after['map_at_r']:.3f} after")
