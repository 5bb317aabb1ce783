"""Triplet losses of other libraries, on unit vectors, with a hinge and a margin of 0.2."""

import importlib.util
from collections.abc import Callable
from typing import Any, NamedTuple

MARGIN = 0.2
DIM = 128


class Peer(NamedTuple):
    """A loss of another library, and what it is expected to take."""

    make: Callable[[], Callable[[Any, Any], Any]]
    """Makes a function of embeddings and labels that gives the loss. It is called only in a process
    that may load torch."""
    like: tuple[str, ...]
    """Our miners that it is compared with. The first has the same rule, if any has."""
    memory: Callable[[int, int], float] = lambda n, k: 0.0
    """The expected bytes, by the batch and the size of a class."""
    grows: str = ""
    """How the memory or the time grows with the batch."""
    seconds: Callable[[int, int], float] = lambda n, k: 0.0
    """The expected seconds on two cores, by the batch and the size of a class."""


def _pml(miner: str | None = None, same_distance: bool = True, **options):
    """PML's triplet loss with one of its miners, or with all triplets if there is none.

    `same_distance=False` is for miners that insist on their own distance.
    """

    def make():
        from pytorch_metric_learning import distances, losses, miners

        distance = distances.LpDistance(normalize_embeddings=False)
        loss = losses.TripletMarginLoss(margin=MARGIN, distance=distance)
        if miner is None:
            return loss
        if same_distance:
            options["distance"] = distance
        mine = getattr(miners, miner)(**options)
        return lambda x, labels: loss(x, labels, mine(x, labels))

    return make


def _sorted_semi_hard():
    """Our semi-hard rule in O(n^2 log n): it sorts the negatives and looks up each positive.

    Anchors go in blocks, so that it never keeps the matrix of all distances. Only the triplets that
    were found have a gradient. All classes must have one size.
    """
    import torch

    def mine(x, labels, rows):
        distances = torch.cdist(x[rows], x)
        same = labels[rows, None] == labels
        to_negatives, order = distances.masked_fill(same, torch.inf).sort(dim=1)
        itself = rows[:, None] == torch.arange(len(x), device=x.device)
        anchor, positive = (same & ~itself).nonzero(as_tuple=True)
        to_positives = distances[anchor, positive].reshape(len(rows), -1)
        place = torch.searchsorted(to_negatives, to_positives, right=True).clamp(max=len(x) - 1)
        found = (to_negatives.gather(1, place) < torch.inf).reshape(-1)
        negative = order.gather(1, place).reshape(-1)
        return torch.stack([rows[anchor], positive, negative])[:, found]

    def loss(x, labels):
        blocks = torch.arange(len(x), device=x.device).split(max(1, 2**23 // len(x)))
        with torch.no_grad():
            a, p, n = torch.cat([mine(x, labels, rows) for rows in blocks], dim=1)
        gap = (x[a] - x[p]).norm(dim=1) - (x[a] - x[n]).norm(dim=1)
        penalty = torch.relu(gap + MARGIN)
        return penalty.sum() / (penalty > 0).sum().clamp(min=1)

    return loss


def _sentence_transformers(name: str, method: str):
    """A loss of sentence-transformers on embeddings, without the model that it usually holds."""

    def make():
        from sentence_transformers.sentence_transformer import losses

        loss = getattr(losses, name)(model=None, margin=MARGIN)
        return lambda x, labels: getattr(loss, method)(labels, x)

    return make


def _triplets(n, k):
    return n * (k - 1) * (n - k)


def _of_all_triplets(n, k):
    # Three indices of 8 bytes, kept twice, and distances: 60 bytes as measured. While n^3 is below
    # 2^31, PML also makes a mask of n^3 bytes.
    return 60 * _triplets(n, k) + (n**3 if n**3 < 2**31 else 0)


def _of_all_vectors(n, k):
    # For every triplet the vectors of anchor, positive, negative and centre, and two differences.
    return 6 * 4 * DIM * _triplets(n, k)


def _of_all_pairs(n, k):
    # For every pair two indices of 8 bytes, distances and masks, and copies of them.
    return 60 * n**2


def _of_pairs_by_pairs(n, k):
    # A byte for every positive pair with every negative pair of the batch.
    return n * (k - 1) * n * (n - k)


def _of_rows_of_pairs(n, k):
    # For every positive pair five rows of distances of 4 bytes.
    return 5 * 4 * n * (k - 1) * n


def _matrix_for_each_class(n, k):
    # It copies the columns of all distances for every class, at about a nanosecond a number.
    return 1e-9 * n**2 * (n / k)


def _pml_peers():
    def of_triplets(kind):
        return _pml("TripletMarginMiner", type_of_triplets=kind, margin=MARGIN)

    def own_distance(miner):
        return _pml(miner, same_distance=False)

    cubic, square = (_of_all_triplets, "n^2 K"), (_of_all_pairs, "n^2")
    return {
        "PML BatchHardMiner": Peer(_pml("BatchHardMiner"), ("batch_hard",), *square),
        "PML all triplets": Peer(_pml(), ("batch_all",), *cubic),
        "PML semihard": Peer(of_triplets("semihard"), ("semi_hard_band", "semi_hard"), *cubic),
        "PML hard": Peer(of_triplets("hard"), ("hard",), *cubic),
        "PML easy": Peer(of_triplets("easy"), ("easy",), *cubic),
        "PML BatchEasyHardMiner": Peer(
            _pml("BatchEasyHardMiner"), ("easy_positive_semi_hard",), *square
        ),
        "PML DistanceWeightedMiner": Peer(
            own_distance("DistanceWeightedMiner"),
            ("distance_weighted",),
            *(_of_all_pairs, "n^3 / K", _matrix_for_each_class),
        ),
        "PML MultiSimilarityMiner": Peer(
            _pml("MultiSimilarityMiner"),
            ("multi_similarity",),
            *(_of_pairs_by_pairs, "n^3 K"),
        ),
        "PML AngularMiner": Peer(
            own_distance("AngularMiner"), ("angular",), *(_of_all_vectors, "n^2 K dim")
        ),
    }


def _sentence_transformers_peers():
    hard, every, semi = (
        _sentence_transformers(f"Batch{name}TripletLoss", f"batch_{method}_triplet_loss")
        for name, method in (("Hard", "hard"), ("All", "all"), ("SemiHard", "semi_hard"))
    )
    return {
        "ST batch hard": Peer(hard, ("batch_hard",), _of_all_pairs, "n^2"),
        "ST batch all": Peer(every, ("batch_all",), _of_rows_of_pairs, "n^2 K"),
        # It has our rule, but takes the farthest negative where none is farther than the positive.
        "ST batch semi-hard": Peer(semi, ("semi_hard",), _of_all_pairs, "n^2"),
    }


HAS_SENTENCE_TRANSFORMERS = importlib.util.find_spec("sentence_transformers") is not None

PEERS: dict[str, Peer] = {
    "torch sort semi-hard": Peer(_sorted_semi_hard, ("semi_hard",)),
    **_pml_peers(),
    **(_sentence_transformers_peers() if HAS_SENTENCE_TRANSFORMERS else {}),
}
