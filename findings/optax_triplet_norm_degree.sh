#!/usr/bin/env bash
# optax: triplet_margin_loss with norm_degree=1 takes differences with their signs, and with 3 it is NaN.
#
# Expected: `norm_degree` is the p of a p-norm, as in torch's TripletMarginLoss: `sum(|a - b|^p)^(1/p)`. With 1 the
# positive (3, -3) of the anchor (0, 0) is at a distance of 6.
#
# Seen (optax 0.2.8, jax 0.10.2, Linux x86-64): without absolute values, -3 and 3 cancel out. The positive is at a
# distance of 0, and the negative (1, 0) at -1. With 3, the root of a negative sum is NaN, and so is the gradient:
#
#   norm_degree=1: loss 1.20, with absolute values 5.20
#   norm_degree=2: loss 3.44, with absolute values 3.44
#   norm_degree=3: loss nan, with absolute values 2.98
#
# Use even degrees alone, or distances of your own.
#
# Source: the differences are raised to the power before anything else: `triplet_margin_loss` in
# optax/losses/_self_supervised.py of https://github.com/google-deepmind/optax
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet optax==0.2.8 jax==0.10.2 jaxlib==0.10.2
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax

MARGIN = 0.2
anchor, positive, negative = (jnp.array([x]) for x in ([0.0, 0.0], [3.0, -3.0], [1.0, 0.0]))
agree = []
for p in (1, 2, 3):

    def loss(anchor, p=p):
        return optax.losses.triplet_margin_loss(
            anchor, positive, negative, norm_degree=p, margin=MARGIN
        ).sum()

    found, gradient = jax.value_and_grad(loss)(anchor)
    to_positive, to_negative = (
        float((jnp.abs(anchor - x) ** p).sum() ** (1 / p)) for x in (positive, negative)
    )
    wanted = max(to_positive - to_negative + MARGIN, 0.0)
    print(f"norm_degree={p}: loss {found:.2f}, with absolute values {wanted:.2f}")
    agree.append((bool(abs(found - wanted) < 0.01), bool(np.isnan(gradient).all())))
if agree != [(False, False), (True, False), (False, True)]:
    sys.exit("The behaviour has changed.")
PYTHON
