"""How good an embedding is: retrieval, verification, clustering, few-shot and open-set recognition.

Each function takes embeddings of any number type and computes in float32. It takes labels as a list
or an array with one for each row, and counts in its result what it used. Ties count against the
embedding, and rows that are not finite score nothing: the docstrings say how.

scikit-learn and scipy.spatial are slow to import, so the functions that use them import them.
"""

from triplet_jax.evaluation.class_distances import NearestClasses, nearest_classes
from triplet_jax.evaluation.close_pairs import ClosePairs, pairs_within
from triplet_jax.evaluation.clustering_metrics import agreement, clustering
from triplet_jax.evaluation.computed_distances import Distances
from triplet_jax.evaluation.few_shot_metrics import few_shot
from triplet_jax.evaluation.items import mean_of_items, nearest_of_items, of_items
from triplet_jax.evaluation.neighbours import by_tiles, make_ranking, nearest
from triplet_jax.evaluation.open_set_metrics import Identified, open_set, open_set_threshold
from triplet_jax.evaluation.query_expansion import expand_queries
from triplet_jax.evaluation.relevance_metrics import retrieval_by_relevance
from triplet_jax.evaluation.reranking import k_reciprocal
from triplet_jax.evaluation.retrieval_metrics import (
    retrieval,
    retrieval_of_pairs,
    retrieval_of_queries,
)
from triplet_jax.evaluation.verification_metrics import (
    Accepted,
    Curve,
    pair_distances,
    roc,
    verification,
    verification_of_pairs,
)

__all__ = [
    "Accepted",
    "ClosePairs",
    "Curve",
    "Distances",
    "Identified",
    "NearestClasses",
    "agreement",
    "by_tiles",
    "clustering",
    "expand_queries",
    "few_shot",
    "k_reciprocal",
    "make_ranking",
    "mean_of_items",
    "nearest",
    "nearest_classes",
    "nearest_of_items",
    "of_items",
    "open_set",
    "open_set_threshold",
    "pair_distances",
    "pairs_within",
    "retrieval",
    "retrieval_by_relevance",
    "retrieval_of_pairs",
    "retrieval_of_queries",
    "roc",
    "verification",
    "verification_of_pairs",
]
