"""Every metric of one set of embeddings, and of the inputs themselves."""

import hashlib

import jax.numpy as jnp
import ml_collections
import numpy as np
from jaxtyping import Float, Shaped

from experiments.run import raw_inputs
from experiments.run.score_table import SHOWN_OF_PAIRS
from triplet_jax import data, errors, evaluation, models
from triplet_jax.devices import processes
from triplet_jax.evaluation import embedding_files

Config = ml_collections.FrozenConfigDict
Embeddings = Float[np.ndarray, "examples dim"]


def retrieval(
    config: Config, examples: data.Dataset, embeddings: Embeddings
) -> dict[str, int | float]:
    """Scores retrieval among the examples, or of pairs from one array to the other.

    Where queries search a gallery, or leave out references, whole rankings are scored, too, since
    mAP is what such protocols report.
    """
    if examples.pair_shapes:
        return evaluation.retrieval_of_pairs(embeddings[0::2], embeddings[1::2])["retrieval"]
    among = embedded(config, examples, embeddings)
    special = among.has_gallery or among.groups is not None
    return evaluation.retrieval(**among.search(), whole_ranking=special)


def embedded(
    config: Config, examples: data.Dataset, embeddings: Embeddings
) -> embedding_files.Embedded:
    """The embeddings with what a run's protocol says of them: who searches whom."""
    everything = np.ones(len(examples), bool)
    asks = examples.is_query
    if asks is not None and not asks.any():  # as in a validation split: each searches all others
        asks = None
    return embedding_files.Embedded(
        embeddings,
        examples.labels,
        **groups_to_ignore(config, examples),
        is_query=everything if asks is None else asks,
        is_gallery=everything if asks is None else ~asks,
    )


def groups_to_ignore(
    config: Config, examples: data.Dataset
) -> dict[str, Shaped[np.ndarray, "examples"] | None]:
    """The arrays by which a query leaves out references, by their names in files of embeddings."""
    if config.evaluate.ignore_group:
        return {"groups": examples.sessions, "reference_groups": None}
    return {"groups": examples.query_groups, "reference_groups": examples.reference_groups}


def judge(config: Config, test: data.Dataset, embeddings: Embeddings) -> dict[str, dict]:
    """Scores the embeddings of the test split, and beside them what any embedding must beat.

    Returns:
      "embedding", and beside it "raw_pixels", the scores of the inputs themselves; of pairs
      "chance", what guessing reaches.
    """
    if test.pair_shapes:
        pairs = len(test) // 2
        return {
            "embedding": evaluation.retrieval_of_pairs(embeddings[0::2], embeddings[1::2]),
            "chance": {f"recall_at_{k}": min(1.0, k / pairs) for k in SHOWN_OF_PAIRS},
        }
    return {
        "embedding": scores(config, test, embeddings),
        "raw_pixels": _scores_of_raw_inputs(config, test),
    }


def scores(config: Config, examples: data.Dataset, embeddings: Embeddings) -> dict[str, dict]:
    """Computes all metrics of labelled embeddings, by kind.

    Few-shot tasks that need more classes, or larger ones, than there are get left out.

    Args:
      config: of the run; says how many few-shot tasks are drawn, and of how many classes.
      examples: what was embedded.
      embeddings: of these examples.
    """
    # Every process finds the neighbours of a part. The rest is quick, so the first does it alone.
    result = {"retrieval": retrieval(config, examples, embeddings)}
    labels, groups = examples.labels, _groups(examples)
    if not processes.is_first():
        return result
    result |= {
        "verification": evaluation.verification(embeddings, labels),
        "clustering": evaluation.clustering(embeddings, labels),
    }
    ways = min(config.evaluate.ways, len(np.unique(labels)))
    tasks = {"few_shot_1": (1, None), "few_shot_5": (5, None)}
    if groups is not None:
        tasks["few_shot_1_within_group"] = (1, groups)
    for name, (shots, among) in tasks.items():
        try:
            result[name] = evaluation.few_shot(
                embeddings,
                labels,
                ways=ways,
                shots=shots,
                episodes=config.evaluate.episodes,
                seed=0,
                groups=among,
            )
        except errors.InputError:  # the classes are too few or too small for this task
            continue
    return result


def nested(config: Config, test: data.Dataset, embeddings: Embeddings) -> dict[str, dict]:
    """Scores retrieval with only the first values of each embedding, by how many they are."""
    found = {}
    for dim in config.loss.nested_dims:
        short = models.prefix(jnp.asarray(embeddings), dim, normalize=config.model.normalize)
        found[str(dim)] = retrieval(config, test, np.asarray(short))
    return found


def _groups(test):
    return None if test.groups is None else test.groups[test.labels]


_of_last_raw_inputs: dict[bytes, dict] = {}


def _scores_of_raw_inputs(config, test):
    """Scores the inputs themselves; once for all runs of a sweep, which share them."""
    c = config.evaluate
    key = hashlib.sha256(f"{c.ways} {c.episodes}".encode())
    ignored = groups_to_ignore(config, test).values()
    for array in (_known_by(test.inputs), test.labels, test.is_query, *ignored):
        if array is not None:
            key.update(np.ascontiguousarray(array).tobytes())
    if key.digest() not in _of_last_raw_inputs:
        _of_last_raw_inputs.clear()
        _of_last_raw_inputs[key.digest()] = scores(config, test, raw_inputs.raw_inputs(test))
    return _of_last_raw_inputs[key.digest()]


def _known_by(inputs):
    """An array that differs where inputs do; images in files are not decoded for it."""
    if isinstance(inputs, np.ndarray):
        return inputs
    return np.array([list(inputs.digest(i)) for i in range(len(inputs))], np.uint8)
