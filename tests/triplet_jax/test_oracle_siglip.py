"""The sigmoid loss against that of SigLIP in transformers. Run by `make oracle`."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from triplet_jax import contrastive

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.filterwarnings("ignore"),  # those of torch and its friends
]
PAIRS = 6


@pytest.fixture(scope="module")
def theirs():
    """What a small model with random weights makes of pairs of an image and a text."""
    torch = pytest.importorskip("torch", reason="make oracle installs it")
    transformers = pytest.importorskip("transformers", reason="make oracle installs it")
    torch.manual_seed(0)
    tower = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    tower["num_attention_heads"] = 2
    config = transformers.SiglipConfig(
        text_config=tower | {"vocab_size": 20, "max_position_embeddings": 5},
        vision_config=tower | {"image_size": 4, "patch_size": 2},
    )
    model = transformers.SiglipModel(config).eval()
    model.logit_scale.data.fill_(np.log(7.0))
    model.logit_bias.data.fill_(-3.0)
    images, texts = torch.randn(PAIRS, 3, 4, 4), torch.randint(2, 20, (PAIRS, 5))
    found = model(input_ids=texts, pixel_values=images, return_loss=True)
    slopes = torch.autograd.grad(found.loss, (model.logit_scale, model.logit_bias))
    rows = [found.text_embeds, found.image_embeds]
    return float(found.loss), [x.detach().numpy() for x in rows], [float(x) for x in slopes]


@pytest.mark.parametrize("order", [1, -1], ids=["texts to images", "images to texts"])
def test_the_loss_and_the_slopes_of_its_numbers_are_theirs(theirs, order):
    expected, both, (of_log_scale, of_bias) = theirs
    rows, references = both[::order]
    own = np.arange(PAIRS)

    def ours(scale, bias):
        loss = functools.partial(contrastive.sigmoid, scale=scale, bias=bias)
        return contrastive.contrastive_loss(
            rows, own, loss=loss, references=references, reference_labels=own
        )[0]

    differentiate = jax.jit(jax.value_and_grad(ours, (0, 1)))
    value, (of_scale, of_own_bias) = differentiate(jnp.float32(7.0), jnp.float32(-3.0))
    assert float(value) == pytest.approx(expected, rel=1e-5)
    assert 7.0 * float(of_scale) == pytest.approx(of_log_scale, rel=1e-4)
    assert float(of_own_bias) == pytest.approx(of_bias, rel=1e-4)
