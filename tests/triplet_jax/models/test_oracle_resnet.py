"""ResNets against torchvision's and timm's, with the same random weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support import torch_models
from triplet_jax import models
from triplet_jax.models import published

torch = pytest.importorskip("torch", reason="make oracle installs torch")
torchvision = pytest.importorskip("torchvision", reason="make oracle installs torchvision")
timm = pytest.importorskip("timm", reason="make oracle installs timm")
pytestmark = pytest.mark.oracle

SIZES = {"basic": (1, 2, 1, 1), "bottleneck": (1, 1, 2, 1)}


def _of_torchvision(kind):
    of_kind = {
        "basic": torchvision.models.resnet.BasicBlock,
        "bottleneck": torchvision.models.resnet.Bottleneck,
    }
    model = torchvision.models.ResNet(of_kind[kind], SIZES[kind], num_classes=3)
    model.fc = torch.nn.Identity()
    return model


def _of_timm(kind):
    block = {"basic": timm.models.resnet.BasicBlock, "bottleneck": timm.models.resnet.Bottleneck}
    return timm.models.resnet.ResNet(block[kind], SIZES[kind], num_classes=0)


PAIRS = [(lib, kind) for lib in (_of_torchvision, _of_timm) for kind in SIZES]
QUICK = [(_of_torchvision, "basic"), (_of_timm, "bottleneck")]


@pytest.fixture(
    params=[pytest.param(case, marks=[] if case in QUICK else pytest.mark.slow) for case in PAIRS]
)
def pair(request):
    """A model of torch, and ours of the same size."""
    make, kind = request.param
    torch.manual_seed(0)
    return make(kind), models.ResNet(SIZES[kind], kind == "bottleneck", stem="7x7")


def test_features_and_gradients_are_those_of_torch(pair):
    theirs, ours = pair
    torch_models.check(ours, theirs, size=40)


def test_running_statistics_are_those_of_torch(pair):
    theirs, ours = pair
    torch_models.randomise(theirs)
    variables = torch_models.filled(ours, theirs).variables
    x = np.random.default_rng(0).normal(size=(2, 3, 40, 40)).astype(np.float32)
    images = jnp.asarray(x.transpose(0, 2, 3, 1))
    train = jax.jit(lambda x: ours.apply(variables, x, True, mutable=["batch_stats"]))
    _, after = train(images)
    theirs.train()(torch.tensor(x))
    found = published.published(variables | after, *ours.layouts())
    for name in ("bn1.running_mean", "layer2.0.bn1.running_mean"):
        torch_models.close(found[name], theirs.state_dict()[name].numpy(), 1e-4, name)
