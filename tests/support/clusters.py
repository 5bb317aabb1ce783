"""Embeddings that lie around a centre for each class."""

import numpy as np


def clusters(seed=0, classes=8, per_class=10, dim=5, noise=0.5):
    random = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), per_class)
    x = random.normal(size=(classes, dim))[labels] + noise * random.normal(size=(len(labels), dim))
    return x.astype(np.float32), labels
