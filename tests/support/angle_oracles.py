"""Losses by angles, and losses against class weights, in float64 from their definitions."""

import math

import numpy as np

KNOBS = {
    "cosface": {"margin": 0.35, "scale": 64.0},
    "nca": {"temperature": 1.0},
    "p2s_grad": {},
    "sphereface": {"multiplier": 4.0, "scale": 30.0},
    "tuplet_margin": {"slack": 0.1, "scale": 64.0},
}


def _angle(d):
    return math.acos(min(1.0, max(-1.0, 1 - d)))


def _psi(angle, m):
    k = math.floor(m * angle / math.pi)
    return (-1) ** k * math.cos(m * angle) - 2 * k


def _softmax(own, others):
    """The cost of each of the values of one's own among the others."""
    return [float(np.logaddexp.reduce([v, *others])) - v for v in own]


def _of_pairs(own, far, scale):
    costs = _softmax([scale * v for v in own], [scale * (1 - d) for d in far])
    return [(sum(costs), len(costs))]


def terms(name, near, far, frozen, **k):
    """The (value, weight) of the terms of an anchor."""
    if not near:
        return [(0.0, 0)]
    if name == "cosface":
        return _of_pairs([1 - d - k["margin"] for d in near], far, k["scale"])
    if name == "sphereface":
        return _of_pairs([_psi(_angle(d), k["multiplier"]) for d in near], far, k["scale"])
    if name == "tuplet_margin":
        return _of_pairs([math.cos(_angle(d) - k["slack"]) for d in near], far, k["scale"])
    if name == "p2s_grad":
        return [(sum(d**2 for d in near) + sum((1 - d) ** 2 for d in far), 1)]
    assert name == "nca"
    own = float(np.logaddexp.reduce([-d / k["temperature"] for d in near]))
    return [(_softmax([own], [-d / k["temperature"] for d in far])[0], 1)]
