"""Slow and plain float64 versions of what the library computes, written from definitions."""

import math

import numpy as np

from tests.support import angle_oracles, rank_oracles

# Knobs of miners and penalties, where they have any, as their docstrings give them.
DEFAULTS = {
    "angular": {"degrees": 20.0},
    "band": {"low": 0.0, "high": 0.2},
    "batch_hard_skip": {"fraction": 0.05},
    "boltzmann": {"beta": 1.0},
    "distance_weighted": {"cutoff": 0.5, "farthest": 1.4},
    "easy": {"margin": 0.2},
    "multi_similarity": {"epsilon": 0.1},
    "quantile": {"hardness": 1.0},
    "hardest_share": {"share": 0.1},
    "rank": {"n": 1},
    "rank_range": {"first": 1, "last": 5},
    "semi_hard_band": {"width": 0.2},
    "semi_hard_facenet": {"width": 0.2},
    "margin_based": {"beta": 1.2},
    "selectively_contrastive": {"temperature": 0.1, "weight": 1.0, "ceiling": 0.8},
}
RANDOM = ("boltzmann", "distance_weighted", "random", "semi_hard_facenet")


def pairwise(a, b, metric, p=None, precision=None):
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    gap = a[:, None, :] - b[None, :, :]
    if metric == "cosine":
        lengths = np.sqrt((a**2).sum(1))[:, None] * np.sqrt((b**2).sum(1))[None, :]
        return np.where(lengths > 0, 1 - a @ b.T / np.where(lengths > 0, lengths, 1), 1.0)
    if metric == "jaccard":
        most = np.maximum(a[:, None, :], b).sum(2)
        least = np.minimum(a[:, None, :], b).sum(2)
        return np.where(most > 0, 1 - least / np.where(most > 0, most, 1), 0.0)
    if metric == "mahalanobis":
        return np.sqrt(np.einsum("abi,ij,abj->ab", gap, np.asarray(precision, np.float64), gap))
    if metric == "minkowski":
        return (np.abs(gap) ** p).sum(2) ** (1 / p)
    if metric == "signal_to_noise":
        variance = a.var(axis=1)[:, None]
        return gap.var(axis=2) / np.where(variance > 0, variance, 1.0)
    return {
        "dot": lambda: 1 - a @ b.T,
        "euclidean": lambda: np.sqrt((gap**2).sum(2)),
        "manhattan": lambda: np.abs(gap).sum(2),
        "squared_euclidean": lambda: (gap**2).sum(2),
    }[metric]()


def candidates_of(labels, among_labels=None):
    """Each anchor's positives and negatives, in order of label and place."""
    own = among_labels is None
    among_labels = labels if own else among_labels
    order = sorted(range(len(among_labels)), key=lambda c: (among_labels[c], c))
    for a, label in enumerate(labels):
        positives = [c for c in order if among_labels[c] == label and not (own and c == a)]
        yield a, positives, [c for c in order if among_labels[c] != label]


def triplets(anchor, among, d, positives, negatives, miner, **knobs):
    """The (positive, negative) of one anchor by a rule without randomness; first of equals."""
    knobs = DEFAULTS.get(miner, {}) | knobs
    pairs = [(p, n) for p in positives for n in negatives]
    if not pairs:
        return []

    def nearest(among):
        return min(among, key=lambda c: d[c])

    def farthest(among):
        return max(among, key=lambda c: d[c])

    def beyond(p):
        return [n for n in negatives if d[n] > d[p]]

    def ranked(among, rank):
        distance = sorted(d[c] for c in among)[rank - 1]
        return next(c for c in among if d[c] == distance)

    def within(low, high):
        return [(p, n) for p, n in pairs if low <= d[n] - d[p] <= high]

    def at(rank):
        return [(p, ranked(negatives, rank)) for p in positives]

    def rank_range():
        if not 1 <= knobs["first"] <= len(negatives):
            return []
        low = ranked(negatives, knobs["first"])
        high = ranked(negatives, min(knobs["last"], len(negatives)))
        return [(p, n) for p, n in pairs if d[low] <= d[n] <= d[high]]

    def batch_hard_skip():
        # Exact shares, such as 3 of 10 for 0.3.
        skip_p = math.floor(knobs["fraction"] * len(positives) + 1e-9)
        skip_n = math.floor(knobs["fraction"] * len(negatives) + 1e-9)
        if skip_p == len(positives) or skip_n == len(negatives):
            return []
        kept = ranked(positives, len(positives) - skip_p)
        return [(kept, ranked(negatives, 1 + skip_n))]

    def sees_wide(p, n):
        centre = (anchor + among[p]) / 2
        to_centre = math.dist(among[n], centre)
        return math.degrees(math.atan2(d[p], 2 * to_centre)) > knobs["degrees"]

    def multi_similarity():
        hard_p = [p for p in positives if d[p] + knobs["epsilon"] > d[nearest(negatives)]]
        hard_n = [n for n in negatives if d[n] - knobs["epsilon"] < d[farthest(positives)]]
        return [(p, n) for p in hard_p for n in hard_n]

    def with_beyond(p, otherwise=()):
        return [(p, nearest(beyond(p)))] if beyond(p) else [(p, n) for n in otherwise]

    far_negative = [farthest(negatives)]
    return {
        "angular": lambda: [(p, n) for p, n in pairs if sees_wide(p, n)],
        "band": lambda: within(knobs["low"], knobs["high"]),
        "batch_all": lambda: pairs,
        "batch_hard": lambda: [(farthest(positives), nearest(negatives))],
        "batch_hard_skip": batch_hard_skip,
        "easy": lambda: [(p, n) for p, n in pairs if d[n] - d[p] > knobs["margin"]],
        "easy_positive_hard": lambda: [(nearest(positives), nearest(negatives))],
        "easy_positive_semi_hard": lambda: with_beyond(nearest(positives)),
        "hard": lambda: [(p, n) for p, n in pairs if d[n] <= d[p]],
        "multi_similarity": multi_similarity,
        "hardest_share": lambda: at(
            min(max(round(knobs["share"] * len(negatives)), 1), len(negatives))
        ),
        "quantile": lambda: at(1 + round((1 - knobs["hardness"]) * (len(negatives) - 1))),
        "rank": lambda: at(knobs["n"]) if 1 <= knobs["n"] <= len(negatives) else [],
        "rank_range": rank_range,
        "semi_hard": lambda: [pair for p in positives for pair in with_beyond(p)],
        "semi_hard_band": lambda: [(p, n) for p, n in pairs if 0 < d[n] - d[p] <= knobs["width"]],
        "semi_hard_tfa": lambda: [pair for p in positives for pair in with_beyond(p, far_negative)],
        "semi_hard_tfsim": lambda: with_beyond(farthest(positives), far_negative),
    }[miner]()


def chances(d, positives, negatives, miner, dim=None, **knobs):
    """What a random rule draws, `{(positive, negative): chance}` for each triplet it draws."""
    knobs = DEFAULTS.get(miner, {}) | knobs
    if not positives or not negatives:
        return []

    def shares(among, log_weight):
        if not among:
            return {}
        logs = [log_weight(c) for c in among]
        weights = [math.exp(x - max(logs)) for x in logs]
        return {c: w / sum(weights) for c, w in zip(among, weights, strict=True)}

    if miner == "boltzmann":
        of_p = shares(positives, lambda p: knobs["beta"] * d[p])
        of_n = shares(negatives, lambda n: -knobs["beta"] * d[n])
        return [{(p, n): a * b for p, a in of_p.items() for n, b in of_n.items()}]

    def log_q(n):
        x = max(d[n], knobs["cutoff"])
        return (dim - 2) * math.log(x) + (dim - 3) / 2 * math.log(1 - x * x / 4)

    def of_positive(p):
        if miner == "semi_hard_facenet":
            return shares([n for n in negatives if 0 < d[n] - d[p] < knobs["width"]], lambda n: 0)
        if miner == "distance_weighted":
            return shares([n for n in negatives if d[n] < knobs["farthest"]], lambda n: -log_q(n))
        return shares(negatives, lambda n: 0)

    drawn = [{(p, n): chance for n, chance in of_positive(p).items()} for p in positives]
    return [one for one in drawn if one]


def penalty_values(d_ap, d_an, d_pn, margin, penalty, **knobs):
    knobs = DEFAULTS.get(penalty, {}) | knobs

    def positive(z):
        return np.maximum(z, 0.0)

    def selectively_contrastive():
        s_ap, s_an = 1 - d_ap, 1 - d_an
        easy = np.log1p(np.exp((s_an - s_ap) / knobs["temperature"]))
        is_hard = (s_an > s_ap) | (s_an > knobs["ceiling"])
        return np.where(is_hard, knobs["weight"] * s_an, easy)

    return {
        "anchor_swap": lambda: positive(d_ap - np.minimum(d_an, d_pn) + margin),
        "hinge": lambda: positive(d_ap - d_an + margin),
        "margin_based": lambda: (
            positive(d_ap - knobs["beta"] + margin) + positive(knobs["beta"] - d_an + margin)
        ),
        "ratio": lambda: (np.exp(d_ap) / (np.exp(d_ap) + np.exp(d_an))) ** 2,
        "selectively_contrastive": selectively_contrastive,
        "soft_margin": lambda: np.log(1 + np.exp(d_ap - d_an)),
        "squared_hinge": lambda: positive(d_ap - d_an + margin) ** 2,
    }[penalty]()


def mine(x, labels, miner, metric="euclidean", refs=None, ref_labels=None, params=None, **knobs):
    """All triplets (anchor, positive, negative)."""
    x = np.asarray(x, np.float64)
    among = x if refs is None else np.asarray(refs, np.float64)
    d = pairwise(x, among, metric, **(params or {}))
    return [
        (a, p, n)
        for a, positives, negatives in candidates_of(labels, ref_labels)
        for p, n in triplets(x[a], among, d[a], positives, negatives, miner, **knobs)
    ]


def loss_of(
    x, found, *, metric="euclidean", margin=0.2, penalty="hinge", refs=None, params=None, **knobs
):
    """Of given triplets the loss by either average, and the numbers of valid and active ones."""
    among, params = x if refs is None else refs, params or {}
    if not found:
        return {"active": 0.0, "valid": 0.0}, 0, 0
    a, p, n = np.array(found).T
    d = pairwise(x, among, metric, **params)
    d_pn = pairwise(among, among, metric, **params)[p, n]
    values = penalty_values(d[a, p], d[a, n], d_pn, margin, penalty, **knobs)
    active = int((values != 0).sum())
    means = {"active": values.sum() / max(active, 1), "valid": values.mean()}
    return means, len(values), active


def slope(function, x, step=1e-5):
    """The gradient of a function with a scalar (or dict of scalars), by central differences."""
    x = np.asarray(x, np.float64)
    result = {}
    for at in np.ndindex(x.shape):
        change = np.zeros_like(x)
        change[at] = step
        above, below = function(x + change), function(x - change)
        for name in above:
            result.setdefault(name, np.zeros_like(x))[at] = (above[name] - below[name]) / (2 * step)
    return result


OF_NEIGHBOURS = ("precision_at_1", "recall", "r_precision", "map_at_r")
"""How the scores begin that need no whole ranking."""


def retrieval(
    embeddings,
    labels,
    ks,
    references=None,
    reference_labels=None,
    own=None,
    metric="euclidean",
    ignore=None,
):
    """Every score by counting what is ahead of each positive, and how many queries have one.

    Of equally near references those of other classes come first. Rows that are not finite are
    never found, and find nothing.
    """
    if references is None:
        references, reference_labels, own = embeddings, labels, range(len(labels))
    with np.errstate(invalid="ignore", over="ignore"):
        d = pairwise(embeddings, references, metric)
    d[~np.isfinite(embeddings).all(axis=1)] = np.inf
    d[:, ~np.isfinite(references).all(axis=1)] = np.inf
    return retrieval_by_distance(d, labels, ks, reference_labels, own, ignore)


def retrieval_by_distance(d, labels, ks, reference_labels, own=None, ignore=None):
    """As `retrieval`, by distances; what is infinitely far is not found."""
    rows = []
    good = np.isfinite(d)
    for q in range(len(labels)):
        others = [c for c in range(len(reference_labels)) if own is None or c != own[q]]
        if ignore is not None:
            same = [c for c in others if reference_labels[c] == labels[q]]
            others = [c for c in others if c not in same or ignore[0][q] != ignore[1][c]]
        positives = [c for c in others if reference_labels[c] == labels[q]]
        if not positives:
            continue
        found = [c for c in positives if good[q, c]]
        negatives = [c for c in others if reference_labels[c] != labels[q]]
        ahead = sorted(sum(d[q, c] <= d[q, p] for c in negatives if good[q, c]) for p in found)
        rows.append(_scores([i + n for i, n in enumerate(ahead, 1)], len(positives), ks))
    return {name: np.mean([row[name] for row in rows]) for name in rows[0]} if rows else {}, len(
        rows
    )


def of_neighbours(scores):
    """Those that need no whole ranking."""
    return {name: score for name, score in scores.items() if name.startswith(OF_NEIGHBOURS)}


def _scores(ranks, r, ks):
    """The scores of a query from the ranks of those of its `r` positives that are found."""
    precision = {rank: i / rank for i, rank in enumerate(ranks, 1)}
    row = {
        "precision_at_1": float(1 in ranks),
        "r_precision": sum(rank <= r for rank in ranks) / r,
        "map_at_r": sum(precision[rank] for rank in ranks if rank <= r) / r,
        "map": sum(precision.values()) / r,
        "mrr": 1 / ranks[0] if ranks else 0.0,
        "minp": r / ranks[-1] if len(ranks) == r else 0.0,
    }
    for k in ks:
        within = [rank for rank in ranks if rank <= k]
        best = sum(1 / math.log2(i + 1) for i in range(1, min(r, k) + 1))
        row[f"recall_at_{k}"] = float(bool(within))
        row[f"map_at_{k}"] = sum(precision[rank] for rank in within) / min(r, k)
        row[f"ndcg_at_{k}"] = sum(1 / math.log2(rank + 1) for rank in within) / best
    return row


CONTRASTIVE = {
    "arcface": {"margin": 0.5, "scale": 64.0},
    "circle": {"margin": 0.25, "scale": 256.0},
    "debiased": {"temperature": 0.5, "prior": 0.1, "concentration": 0.0},
    "info_nce": {"temperature": 0.1, "hardness_strength": 0.0},
    "lifted": {"margin": 1.0},
    "multi_similarity": {"alpha": 2.0, "beta": 50.0, "base": 0.5},
    "n_pairs": {},
    "pairs": {"margin": 1.0, "positive_margin": 0.0, "power": 2.0},
    "positive_aware": {
        "temperature": 0.1,
        "absolute_margin": 0.0,
        "relative_margin": 0.05,
        "hardness_strength": 0.0,
    },
    "proxy_anchor": {"margin": 0.1, "scale": 32.0},
    "sigmoid": {"scale": 10.0, "bias": -10.0},
    "supervised_contrastive": {"temperature": 0.1},
    **angle_oracles.KNOBS,
    **rank_oracles.KNOBS,
}


def _log(x):
    return math.log(x) if x else -math.inf


def anchor_terms(name, near, far, frozen, **knobs):
    """The (value, weight) of each term of one anchor, from its distances as lists of floats.

    `frozen` are the same distances where they are constants to the gradient.
    """
    k = CONTRASTIVE[name] | knobs
    for module in (angle_oracles, rank_oracles):
        if name in module.KNOBS:
            return module.terms(name, near, far, frozen, **k)
    s_ap, s_an = [1 - d for d in near], [1 - d for d in far]
    has, both = bool(near), bool(near) and bool(far)
    if name == "pairs":
        ap = [max(0.0, d - k["positive_margin"]) ** k["power"] for d in near]
        an = [max(0.0, k["margin"] - d) ** k["power"] for d in far]
        return [(sum(ap), sum(v > 0 for v in ap)), (sum(an), sum(v > 0 for v in an))]
    if name in ("info_nce", "n_pairs", "positive_aware"):
        t, strength = k.get("temperature", 1.0), k.get("hardness_strength", 0.0)
        f_ap, f_an = ([1 - d for d in frozen_of] for frozen_of in frozen)
        value = 0.0
        for s, f_p in zip(s_ap, f_ap, strict=True):
            least = math.inf
            if name == "positive_aware":
                least = f_p - k["absolute_margin"] - k["relative_margin"] * abs(f_p)
            kept = [(u, f) for u, f in zip(s_an, f_an, strict=True) if f <= least]
            logits = [s / t, *(u / t + strength * f for u, f in kept)]
            value += float(np.logaddexp.reduce(logits)) - s / t
        return [(value, len(near))]
    if name == "debiased":
        if not both:
            return [(0.0, len(near))]
        t, beta = k["temperature"], k["concentration"]
        e_n = sum(math.exp((1 + beta) * s / t) for s in s_an)
        e_n /= sum(math.exp(beta * s / t) for s in s_an)
        e_p = sum(math.exp(s / t) for s in s_ap) / len(s_ap)
        g = max((e_n - k["prior"] * e_p) / (1 - k["prior"]), math.exp(-1 / t))
        return [(sum(math.log(1 + len(far) * g * math.exp(-s / t)) for s in s_ap), len(near))]
    if name == "sigmoid":
        signed = [-(k["scale"] * s + k["bias"]) for s in s_ap]
        signed += [k["scale"] * s + k["bias"] for s in s_an]
        return [(sum(float(np.logaddexp(0.0, z)) for z in signed), bool(near or far))]
    if name == "supervised_contrastive":
        t = k["temperature"]
        everything = _log(sum(math.exp(u / t) for u in s_ap + s_an))
        return [(-sum(s / t - everything for s in s_ap) / len(near) if has else 0.0, has)]
    if name == "lifted":
        if not both:
            return [(0.0, 0)]
        inner = _log(sum(map(math.exp, near))) + _log(sum(math.exp(k["margin"] - d) for d in far))
        return [(max(0.0, inner), 1)]
    if name == "multi_similarity":
        a, b, base = k["alpha"], k["beta"], k["base"]
        value = math.log(1 + sum(math.exp(-a * (s - base)) for s in s_ap)) / a
        value += math.log(1 + sum(math.exp(b * (s - base)) for s in s_an)) / b
        return [(value if has else 0.0, has)]
    if name == "circle":
        if not both:
            return [(0.0, 0)]
        m, scale = k["margin"], k["scale"]
        f_ap, f_an = ([1 - d for d in frozen_of] for frozen_of in frozen)
        pull = [-scale * max(0.0, 1 + m - f) * (s - 1 + m) for s, f in zip(s_ap, f_ap, strict=True)]
        push = [scale * max(0.0, f + m) * (s - m) for s, f in zip(s_an, f_an, strict=True)]
        most = max(pull) + max(push)
        inner = _log(sum(math.exp(u - max(pull)) for u in pull)) + _log(
            sum(math.exp(u - max(push)) for u in push)
        )
        return [(float(np.logaddexp(0.0, inner + most)), 1)]
    if name == "proxy_anchor":
        m, scale = k["margin"], k["scale"]
        value = [
            math.log(1 + sum(math.exp(-scale * (s - m)) for s in s_ap)),
            math.log(1 + sum(math.exp(scale * (s + m)) for s in s_an)),
        ]
        return [(value[0], has), (value[1], 1)]
    assert name == "arcface"
    m, scale = k["margin"], k["scale"]
    value = 0.0
    for s in s_ap:
        s = min(1.0, max(-1.0, s))
        if s > math.cos(math.pi - m):
            s = math.cos(math.acos(s) + m)
        else:
            s = s - m * math.sin(math.pi - m)
        value += -scale * s + float(np.logaddexp.reduce([scale * u for u in [s, *s_an]]))
    return [(value, len(near))]


def contrastive(x, labels, name, metric, refs=None, ref_labels=None, frozen=None, **knobs):
    """The loss from its definition; `frozen` are `(x, refs)` where it takes them as constants."""
    own = refs is None
    d = pairwise(x, x if own else refs, metric)
    at, refs_at = frozen or (x, refs)
    fixed = pairwise(at, at if own else refs_at, metric)
    terms = []
    for a, positives, negatives in candidates_of(labels, None if own else ref_labels):
        rows = [[float(r[a, c]) for c in cs] for r in (d, fixed) for cs in (positives, negatives)]
        terms.append(anchor_terms(name, rows[0], rows[1], rows[2:], **knobs))
    value, weight = np.sum(terms, axis=0).T
    return float(np.sum(value / np.where(weight > 0, weight, 1.0)))
