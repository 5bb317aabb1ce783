"""Batches of the most learnable of more classes that are offered: `batch.choose_from`."""

from collections.abc import Callable

import jax
import ml_collections
from jaxtyping import Array, Int, Shaped

from experiments.config import row_losses, settings
from triplet_jax.curricula import learnability
from triplet_jax.data import sampling
from triplet_jax.devices import collectives
from triplet_jax.models import encoder_parts, pixels
from triplet_jax.training.numbers import Numbers
from triplet_jax.training.train_state import TrainState


def choose(config: ml_collections.ConfigDict, encoder: encoder_parts.Applied) -> Callable:
    """What chooses a batch inside a compiled step, `(offered, index, inputs, state, numbers)`.

    It gives the positions of the batch. `offered` holds positions too, `batch.per_class` of each
    class, class after class. Each device embeds its share of them, as evaluation embeds images, but
    with the parameters themselves and not with their moving average.
    """
    per_class, metric = config.batch.per_class, row_losses.metric(config)
    _, run_key = settings.keys(config)

    def of_batch(
        offered: Int[Array, " offered"],
        index: sampling.ClassIndex,
        inputs: Shaped[Array, "examples ..."],
        state: TrainState,
        numbers: Numbers,
    ) -> Int[Array, "batch"]:
        def confusion(embeddings):
            return learnability.confusion(
                embeddings,
                per_class=per_class,
                metric=metric["metric"],
                margin=numbers["loss.margin"],
                **metric["metric_params"],
            )

        own, _ = collectives.share(offered, collectives.DEVICES)
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        embedded = encoder.apply(variables, pixels.as_floats(inputs[own]), project=True)
        embedded = collectives.gather(embedded, collectives.DEVICES)[: len(offered)]
        # Beyond the keys of the step itself.
        key = jax.random.fold_in(jax.random.fold_in(run_key, state.step), 3)
        places = learnability.chosen(
            confusion(embedded),
            confusion(index.reference[offered]),
            classes=config.batch.classes,
            strictness=numbers["batch.strictness"],
            key=key,
        )
        return offered.reshape(-1, per_class)[places].reshape(-1)

    return of_batch
