"""Compares a backbone of ours with a model of torch that has the same random weights."""

import jax
import jax.numpy as jnp
import numpy as np

from triplet_jax.models import published


def randomise(model) -> None:
    """Gives a model of torch random statistics, scales and biases, and sets it to evaluation."""
    import torch

    torch.manual_seed(0)
    model.eval()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.ndim <= 1 and name.endswith(("running_var", "weight")):
                tensor.uniform_(0.5, 1.5)
            elif tensor.ndim == 1 or name.endswith(("gamma", "layer_scale")):
                tensor.normal_(0, 0.3)


def filled(ours, theirs):
    """Our variables with the weights of a model of torch."""
    x = jnp.zeros((1, 32, 32, 3))
    shapes = jax.eval_shape(lambda: ours.init(jax.random.key(0), x, False))
    tensors = {name: tensor.numpy() for name, tensor in theirs.state_dict().items()}
    return published.fill(shapes, tensors, ours.layouts())


def close(ours, theirs, tolerance: float, what: str) -> None:
    """Checks the relative error, by the norm."""
    error = np.linalg.norm(np.asarray(ours) - theirs) / np.linalg.norm(theirs)
    assert error < tolerance, (what, error)


def check(ours, theirs, size: int = 32) -> None:
    """Features within 1e-5, gradients of inputs and of every parameter within 1e-4."""
    import torch

    randomise(theirs)
    found = filled(ours, theirs)
    x = np.random.default_rng(0).normal(size=(3, 3, size, size)).astype(np.float32)
    inputs = torch.tensor(x, requires_grad=True)
    expected = theirs(inputs)
    (expected**2).sum().backward()

    def value(variables, x):
        y = ours.apply(variables, x, False)
        return (y**2).sum(), y

    differentiate = jax.jit(jax.grad(value, argnums=(0, 1), has_aux=True))
    images = jnp.asarray(x.transpose(0, 2, 3, 1))
    (of_weights, of_inputs), features = differentiate(found.variables, images)
    close(features, expected.detach().numpy(), 1e-5, "features")
    close(of_inputs.transpose(0, 3, 1, 2), inputs.grad.numpy(), 1e-4, "inputs")
    layout = next(layout for layout in ours.layouts() if layout.name == found.layout)
    gradients = published.published(of_weights, layout)
    for name, parameter in theirs.named_parameters():
        gradient = gradients[name].reshape(parameter.shape)
        close(gradient, parameter.grad.numpy(), 1e-4, name)
