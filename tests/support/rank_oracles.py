"""Losses of ranks in float64, by counting, as their definitions say."""

import math

KNOBS = {
    "fast_ap": {"bins": 10},
    "pnp": {"temperature": 0.01, "power": 1.0},
    "ranked_list": {"boundary": 1.2, "margin": 0.4, "temperature": 0.1, "negative_share": 0.5},
    "recall_at_k": {"most": 16, "temperature": 0.01, "rank_temperature": 1.0},
    "smooth_ap": {"temperature": 0.01},
}


def _sigmoid(x):
    return 1 / (1 + math.exp(-x)) if x > 0 else math.exp(x) / (1 + math.exp(x))


def _before(at, others, temperature):
    return sum(_sigmoid((at - d) / temperature) for d in others)


def _without(values, place):
    return [v for i, v in enumerate(values) if i != place]


def smooth_ap(near, far, frozen, temperature):
    precisions = []
    for i, d in enumerate(near):
        of_p = 1 + _before(d, _without(near, i), temperature)
        precisions.append(of_p / (of_p + _before(d, far, temperature)))
    return 1 - sum(precisions) / len(near)


def recall_at_k(near, far, frozen, most, temperature, rank_temperature):
    ranks = [1 + _before(d, _without(near, i) + far, temperature) for i, d in enumerate(near)]
    lengths = [2**i for i in range(11) if 2**i <= most]
    recalls = []
    for k in lengths:
        found = sum(_sigmoid((k - rank) / rank_temperature) for rank in ranks)
        recalls.append(min(k, found) / min(k, len(near)))
    return 1 - sum(recalls) / len(lengths)


def pnp(near, far, frozen, temperature, power):
    return 1 - sum((1 + _before(d, far, temperature)) ** -power for d in near) / len(near)


def fast_ap(near, far, frozen, bins):
    width = 2 / bins
    total, of_p, of_all = 0.0, 0.0, 0.0
    for j in range(math.ceil(bins) + 1):

        def at_edge(distances, j=j):
            return sum(max(0.0, 1 - abs(d - j * width) / width) for d in distances)

        here = at_edge(near)
        of_p, of_all = of_p + here, of_all + here + at_edge(far)
        total += here * of_p / of_all if of_all else 0.0
    return 1 - total / len(near)


def ranked_list(near, far, frozen, boundary, margin, temperature, negative_share):
    pull = [d - boundary + margin for d in near if d > boundary - margin]
    push = [
        (math.exp((boundary - f) / temperature), boundary - d)
        for d, f in zip(far, frozen[1], strict=True)
        if d < boundary
    ]
    of_p = sum(pull) / len(pull) if pull else 0.0
    of_n = sum(w * v for w, v in push) / sum(w for w, _ in push) if push else 0.0
    return (1 - negative_share) * of_p + negative_share * of_n


FUNCTIONS = {f.__name__: f for f in (fast_ap, pnp, ranked_list, recall_at_k, smooth_ap)}


def terms(name, near, far, frozen, **knobs):
    """The (value, weight) of an anchor: 1 for each anchor with positives."""
    if not near:
        return [(0.0, 0)]
    return [(FUNCTIONS[name](near, far, frozen, **knobs), 1)]
