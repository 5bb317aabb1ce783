"""Features by a backbone: of all examples at once where they are kept, or of a split."""

import numpy as np
import pytest

from experiments.run import backbone_features
from tests.support.configs import config
from triplet_jax import data


@pytest.mark.parametrize(("freeze", "counts"), [("backbone", [12]), ("", [6, 2])])
def test_kept_features_are_computed_once_and_others_by_split(freeze, counts, monkeypatch):
    """Here the features of an example are its inputs, doubled."""
    asked = []

    def make_features(encoder, variables, **settings):
        assert (encoder, variables) == ("encoder", "variables")

        def features(inputs):
            asked.append(len(inputs))
            return 2 * inputs

        return features

    monkeypatch.setattr(backbone_features.kept_features, "make_features", make_features)
    plain = {
        "model__weights": "tiny.safetensors",
        "augment__shift": 0.0,
        "augment__rotate": 0.0,
        "augment__scale": 0.0,
    }
    made = config(model__freeze=freeze, **plain)
    x, split = np.arange(24.0).reshape(12, 2), np.repeat(["train", "validation", "test"], [6, 2, 4])
    everything = data.Dataset(x, np.arange(12) % 2, split, ("a", "b"))
    found = backbone_features.BackboneFeatures(made, "encoder", everything)
    for name in ("train", "validation"):
        np.testing.assert_array_equal(found.of_split("variables", name), 2 * x[split == name])
    assert asked == counts
