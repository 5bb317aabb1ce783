"""What a config does to the values of an image, and with which first layer it sees them."""

import pytest

from experiments.config import encoders, preprocessing
from tests.support import tiny_backbone
from tests.support.configs import config
from triplet_jax import errors
from triplet_jax.models import published, resnet

WITH_WEIGHTS = {"model__weights": "some.safetensors"}


def statistics(shape=(64, 64, 3), **fields):
    made = config(**{"model__name": "resnet18"} | fields)
    return encoders.encoder(made, shape).statistics


def test_nothing_is_done_without_weights():
    assert statistics() is None
    assert statistics(model__pixels="unit") is None
    assert statistics(model__pixels="half") == published.HALF


def test_with_weights_it_is_what_they_expect():
    assert statistics(**WITH_WEIGHTS) == resnet.EXPECTS
    assert statistics(model__init_from="runs/one") == resnet.EXPECTS
    assert statistics(model__pixels="clip", **WITH_WEIGHTS) == published.CLIP
    # Published weights take three channels, of grey images too.
    assert statistics((64, 64, 1), model__pixels="unit", **WITH_WEIGHTS) == preprocessing.UNIT
    assert (
        statistics((64, 64, 1), model__name=tiny_backbone.PATH, **WITH_WEIGHTS).mean == (0.5,) * 3
    )
    assert statistics(model__name="conv4", model__init_from="runs/one") is None


def test_what_cannot_be_normalised_is_refused():
    with pytest.raises(errors.InputError, match="model.pixels='half' has no effect on inputs"):
        statistics((5,), model__name="mlp", model__pixels="half")
    assert statistics((5,), model__name="mlp") is None
    with pytest.raises(errors.InputError, match="or grey ones, not of 4. Set dataset.channels=3"):
        statistics((64, 64, 4), **WITH_WEIGHTS)


def test_the_stem_of_a_resnet_is_that_of_its_weights():
    def stem(**fields):
        return encoders.encoder(config(model__name="resnet18", **fields), (8, 8, 3)).backbone.stem

    assert stem() == "by_size"
    assert stem(**WITH_WEIGHTS) == "7x7"
    assert stem(model__stem="3x3", **WITH_WEIGHTS) == "3x3"
    with pytest.raises(errors.InputError, match="model.stem='7x7' has no effect with model.name"):
        encoders.encoder(config(model__stem="7x7"), (8, 8, 1))
