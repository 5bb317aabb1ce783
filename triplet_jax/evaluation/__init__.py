"""How good an embedding is: retrieval, few-shot classification, verification, clustering.

All of them take embeddings of any number type, compute in float32, take labels as a list or an
array with one for each row, and count in their result what they used. Ties count against the
embedding, and rows that are not finite score nothing: each function's docstring gives its rule.

scikit-learn takes longer to import than all the rest, so what needs it imports it.
"""

from triplet_jax.evaluation.clustering_metrics import agreement, clustering
from triplet_jax.evaluation.few_shot_metrics import few_shot
from triplet_jax.evaluation.neighbours import by_tiles, make_ranking, nearest
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
)

__all__ = [
    "Accepted",
    "Curve",
    "agreement",
    "by_tiles",
    "clustering",
    "few_shot",
    "make_ranking",
    "nearest",
    "pair_distances",
    "retrieval",
    "retrieval_of_pairs",
    "retrieval_of_queries",
    "roc",
    "verification",
]
