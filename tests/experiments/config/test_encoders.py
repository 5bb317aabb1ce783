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


@pytest.mark.parametrize(
    ("changes", "shape", "message"),
    [
        (("turns",), (8, 6, 1), "^evaluate.augment=\\('turns',\\): 'turns' needs square images"),
        (("flip",), (5,), "^evaluate.augment=\\('flip',\\) need images"),
        (("flip", "mirror"), (8, 8, 1), "^evaluate.augment=.* Leave one of them out"),
    ],
)
def test_copies_that_cannot_be_made_are_refused_by_their_field(changes, shape, message):
    config = configs.config(model__name="mlp", evaluate__augment=changes)
    with pytest.raises(errors.InputError, match=message):
        encoders.encoder(config, shape)
