"""An embedding of texts, from rows (anchor, positive, negative) as for sentence-transformers."""

import inspect
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.special
from sklearn.feature_extraction.text import HashingVectorizer

from triplet_jax import contrastive, evaluation, schedules

STEPS = int(sys.argv[1]) if len(sys.argv) > 1 else 200
OPTIMIZER = optax.adam(3e-3)
# The curriculum: near negatives weigh more and more.
STRENGTH = schedules.between(schedules.cosine(total_steps=STEPS), start=0.0, end=5.0)


def loss_of(params, anchors, others, step):
    # Other i is the positive of anchor i, and those after the positives are negatives of all.
    labels = jnp.arange(len(others))
    nce = partial(contrastive.info_nce, temperature=0.05, hardness_strength=STRENGTH(step))
    settings = {"loss": nce, "references": others @ params, "reference_labels": labels}
    return contrastive.contrastive_loss(anchors @ params, labels[: len(anchors)], **settings)


@jax.jit
def train_step(params, state, anchors, others, step):
    (loss, stats), slopes = jax.value_and_grad(loss_of, has_aux=True)(params, anchors, others, step)
    updates, state = OPTIMIZER.update(slopes, state, params)
    return optax.apply_updates(params, updates), state, loss


def recall(params, anchors, positives):
    found = evaluation.retrieval_of_pairs(anchors @ params, positives @ params, metric="cosine")
    return found["first_to_second"]["recall_at_1"]


documented = {inspect.getdoc(x) or "" for x in (vars(np) | vars(scipy.special)).values()}
anchor, positive = zip(*sorted(x.split("\n\n", 1) for x in documented if "\n\n" in x), strict=True)
# The columns of a `datasets.Dataset`, as by `dataset[:]`. There may be no negatives, or several.
table = {"anchor": anchor, "positive": positive, "negative": positive[1:] + positive[:1]}
words = [HashingVectorizer(n_features=4096).transform(x).toarray() for x in table.values()]
random = np.random.default_rng(0)
unseen, seen = np.split(random.permutation(len(anchor)), [200])
params = jax.random.normal(jax.random.key(0), (4096, 128))
state = OPTIMIZER.init(params)
before = recall(params, words[0][unseen], words[1][unseen])
for step in range(STEPS):
    rows = random.choice(seen, 64, replace=False)
    anchors, *others = (x[rows] for x in words)
    params, state, loss = train_step(params, state, anchors, np.concatenate(others), step)
    if step % 50 == 0:
        print(f"step {step}: loss {loss:.3f}")
after = recall(params, words[0][unseen], words[1][unseen])
print(f"Recall@1 {before:.3f} before, {after:.3f} after")
