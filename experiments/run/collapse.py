"""Advice for a run whose embedding has collapsed, by its inputs and its config."""

import numpy as np

from triplet_jax import data
from triplet_jax.data import images

# Inputs whose spread is below this share of their length are too alike to learn from.
NEARLY_EQUAL = 0.01
_LOOKED_AT = 256


def advice(config, examples: data.Dataset) -> str:
    """Advises on the inputs where they are nearly equal, and else on fields of the config.

    Args:
      config: of the run.
      examples: its training split.
    """
    spread = inputs_spread(examples)
    if spread < NEARLY_EQUAL:
        return (
            f"The training inputs are nearly equal: their spread is {100 * spread:.2g}% of their"
            " length. Look at them, and at how dataset.* fields read them, before you change the"
            " training."
        )
    ways = []
    if config.loss.name == "triplet" and config.mining.miner != "semi_hard":
        ways.append("mining.miner=semi_hard")
    ways.append(f"an optimizer.learning_rate below {config.optimizer.learning_rate:g}")
    if config.loss.name == "triplet":
        ways.append(f"a loss.margin below {config.loss.margin:g}")
    return f"Try {', or '.join(ways)}."


def inputs_spread(examples: data.Dataset) -> float:
    """The root mean square distance of the inputs to their mean, divided by that to zero."""
    some = np.unique(np.linspace(0, len(examples) - 1, _LOOKED_AT).astype(int))
    x = np.asarray(images.load(examples.inputs[some])).reshape(len(some), -1).astype(np.float64)
    length = np.sqrt(np.mean(np.sum(x**2, axis=1)))
    spread = np.sqrt(np.mean(np.sum((x - x.mean(axis=0)) ** 2, axis=1)))
    return float(spread / length) if length > 0 else 0.0
