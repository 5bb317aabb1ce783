"""What is noted of an exported encoder."""

import pytest

from experiments.run import encoder_notes
from tests.support.configs import config
from triplet_jax import models
from triplet_jax.models import published


@pytest.mark.parametrize("shapes", [((8, 8, 3), (5,)), ((8, 8, 3),)])
def test_each_of_two_encoders_is_described(shapes, tmp_path):
    statistics = published.Preprocessing((0.5,) * 3, (0.25,) * 3)
    photographs = models.encoder("conv4", dim=6, statistics=statistics)
    features = models.encoder("mlp", dim=6, normalize=False)
    two = models.TwoTowers(photographs, features if len(shapes) == 2 else photographs)
    found = encoder_notes.notes(tmp_path, config(), two, 7, shapes)
    assert found["step"] == 7 and found["weights"] is None
    of_photographs = {
        "size": [8, 8],
        "channels": 3,
        "range": [0.0, 1.0],
        "mean": [0.5] * 3,
        "std": [0.25] * 3,
    }
    assert found["inputs"]["first"] == of_photographs
    assert found["embedding"]["first"] == {"dim": 6, "unit_length": True}
    if len(shapes) == 1:
        assert found["inputs"]["second"] == of_photographs
    else:
        assert found["inputs"]["second"] == {"shape": [5], "standardised": False}
        assert found["embedding"]["second"] == {"dim": 6, "unit_length": False}
