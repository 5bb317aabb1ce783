"""Triplet losses, contrastive losses and triplet mining in JAX.

The modules that a user imports:

* `losses`: the loss of triplets that a miner picks in a batch, or of triplets that are given.
* `mining`: miners, which choose the triplets of one anchor.
* `penalties`: what one triplet costs.
* `contrastive`: losses of all positives and negatives of an anchor.
* `relations`: positives and negatives where one label for each row can't say them.
* `distances`: the distances between embeddings.
* `class_centres`: distances to classes that have several centres.
* `regularisers`: terms that are added to a loss.
* `schedules`: numbers that move while training.
* `telemetry`: what mining does in a batch, as arrays.
* `errors`: the errors that these raise.
* `evaluation`: retrieval, few-shot classification, verification and clustering.

`data`, `models`, `training`, `curricula`, `runs` and `analysis` train with these modules and import
them. These in turn rest on `arguments`, `engine`, `devices` and `xla`.

This package imports nothing itself: `from triplet_jax import losses` loads jax, and no library for
data, checkpoints or plots.
"""

__version__ = "0.1.0"
