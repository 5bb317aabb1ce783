"""What the encoder of a config refuses."""

import pytest

from experiments.config import encoders
from tests.support import configs
from triplet_jax import errors


def test_an_image_size_that_a_patch_does_not_divide_is_refused():
    config = configs.config(model__name="vit_tiny_16")
    assert encoders.encoder(config, (48, 48, 3)).backbone.patch == 16
    with pytest.raises(errors.InputError, match="30 x 30 .* are: 16, 32. Set dataset.image_size"):
        encoders.encoder(config, (30, 30, 3))
