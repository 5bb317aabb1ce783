"""Slow and plain float64 versions of what the library computes, written from definitions."""

import math

import numpy as np


def pairwise(a, b, metric):
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    result = np.zeros((len(a), len(b)))
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            if metric == "euclidean":
                result[i, j] = math.sqrt(((x - y) ** 2).sum())
            elif metric == "squared_euclidean":
                result[i, j] = ((x - y) ** 2).sum()
            elif metric == "cosine":
                lengths = math.sqrt((x**2).sum()) * math.sqrt((y**2).sum())
                result[i, j] = 1 - (x @ y) / lengths if lengths else 1.0
    return result


def triplets(to_candidates, positives, negatives, miner):
    """The list of (positive, negative) of one anchor, by a rule without randomness."""
    d = to_candidates
    if not positives or not negatives:
        return []
    if miner == "batch_all":
        return [(p, n) for p in positives for n in negatives]
    if miner == "batch_hard":
        return [(max(positives, key=lambda p: d[p]), min(negatives, key=lambda n: d[n]))]
    if miner == "semi_hard":
        pairs = []
        for p in positives:
            farther = [n for n in negatives if d[n] > d[p]]
            if farther:
                pairs.append((p, min(farther, key=lambda n: d[n])))
        return pairs
    raise KeyError(miner)


def penalty_value(d_ap, d_an, margin, penalty):
    if penalty == "hinge":
        return max(0.0, d_ap - d_an + margin)
    z = d_ap - d_an
    return max(z, 0.0) + math.log1p(math.exp(-abs(z)))


def mine(embeddings, labels, miner, metric, references=None, reference_labels=None):
    """All triplets (anchor, positive, negative)."""
    among = embeddings if references is None else references
    among_labels = labels if references is None else reference_labels
    d = pairwise(embeddings, among, metric)
    found = []
    for a in range(len(labels)):
        same = [c for c in range(len(among)) if among_labels[c] == labels[a]]
        positives = [c for c in same if references is not None or c != a]
        negatives = [c for c in range(len(among)) if among_labels[c] != labels[a]]
        found += [(a, p, n) for p, n in triplets(d[a], positives, negatives, miner)]
    return found


def loss_of(embeddings, found, *, metric, margin, penalty, average, references=None):
    """The loss of given triplets, and the counts."""
    among = embeddings if references is None else references
    d = pairwise(embeddings, among, metric)
    values = [penalty_value(d[a, p], d[a, n], margin, penalty) for a, p, n in found]
    active = sum(value > 0 for value in values)
    denominator = active if average == "active" else len(values)
    return sum(values) / denominator if denominator else 0.0, len(values), active


def retrieval(embeddings, labels, ks):
    """P@1, Recall@k, R-precision and MAP@R by sorting every row."""
    d = pairwise(embeddings, embeddings, "euclidean")
    rows = []
    for q in range(len(labels)):
        order = [j for j in np.argsort(d[q], kind="stable") if j != q]
        relevant = [labels[j] == labels[q] for j in order]
        r = sum(relevant)
        if r == 0:
            continue
        precisions = [sum(relevant[: i + 1]) / (i + 1) for i in range(r)]
        row = {
            "precision_at_1": float(relevant[0]),
            "r_precision": sum(relevant[:r]) / r,
            "map_at_r": sum(p for p, hit in zip(precisions, relevant, strict=False) if hit) / r,
        }
        row |= {f"recall_at_{k}": float(any(relevant[:k])) for k in ks}
        rows.append(row)
    return {name: np.mean([row[name] for row in rows]) for name in rows[0]} if rows else {}, len(
        rows
    )
