"""ResNets against torchvision's and timm's, with the same random weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

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


@pytest.fixture(params=[(lib, kind) for lib in (_of_torchvision, _of_timm) for kind in SIZES])
def pair(request):
    """A model of torch with random weights and statistics, and ours with the same."""
    make, kind = request.param
    torch.manual_seed(0)
    theirs = make(kind).eval()
    with torch.no_grad():
        for name, tensor in theirs.state_dict().items():
            if tensor.ndim == 1 and name.endswith(("running_var", "weight")):
                tensor.uniform_(0.5, 1.5)
            elif tensor.ndim == 1:
                tensor.normal_(0, 0.1)
    ours = models.ResNet(SIZES[kind], kind == "bottleneck", stem="7x7")
    x = np.random.default_rng(0).normal(size=(2, 3, 40, 40)).astype(np.float32)
    shapes = jax.eval_shape(lambda: ours.init(jax.random.key(0), jnp.zeros((1, 40, 40, 3)), False))
    tensors = {name: tensor.numpy() for name, tensor in theirs.state_dict().items()}
    filled = published.fill(shapes, tensors, ours.layouts())
    return theirs, ours, filled.variables, x


def _channels_last(x):
    return jnp.asarray(x.transpose(0, 2, 3, 1))


def _close(ours, theirs, tolerance):
    error = np.linalg.norm(np.asarray(ours) - theirs) / np.linalg.norm(theirs)
    assert error < tolerance, error


def test_features_and_gradients_are_those_of_torch(pair):
    theirs, ours, variables, x = pair
    inputs = torch.tensor(x, requires_grad=True)
    expected = theirs(inputs)
    (expected**2).sum().backward()

    def value(variables, x):
        y = ours.apply(variables, x, False)
        return (y**2).sum(), y

    differentiate = jax.jit(jax.grad(value, argnums=(0, 1), has_aux=True))
    (of_weights, of_inputs), features = differentiate(variables, _channels_last(x))
    _close(features, expected.detach().numpy(), 1e-5)
    _close(of_inputs.transpose(0, 3, 1, 2), inputs.grad.numpy(), 1e-4)
    gradients = published.published(of_weights, *ours.layouts())
    for name, parameter in theirs.named_parameters():
        _close(gradients[name], parameter.grad.numpy(), 1e-4)


def test_running_statistics_are_those_of_torch(pair):
    theirs, ours, variables, x = pair
    after = ours.apply(variables, _channels_last(x), True, mutable=["batch_stats"])[1]
    theirs.train()(torch.tensor(x))
    found = published.published(variables | after, *ours.layouts())
    for name in ("bn1.running_mean", "layer2.0.bn1.running_mean"):
        _close(found[name], theirs.state_dict()[name].numpy(), 1e-4)
