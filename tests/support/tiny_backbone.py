"""A backbone of two layers with published names, to train with in a second."""

import flax.linen as nn
import numpy as np
import safetensors.numpy

from triplet_jax import models
from triplet_jax.models import published
from triplet_jax.models.published import CONV, Stored

PATH = f"{__name__}:Tiny"
WIDTH = 6


class Tiny(nn.Module):
    """A convolution of patches and its normalisation, pooled."""

    width: int = WIDTH
    norm: str = "batch"
    axis_name: str | None = None
    frozen: int = 0
    stem: str = "by_size"
    expects: published.Preprocessing = published.HALF

    @nn.compact
    def __call__(self, x, train):
        train = train and not self.frozen
        x = nn.Conv(self.width, (4, 4), strides=4, name="conv")(x)
        norm = models.make_norm(self.norm, train=train, axis_name=self.axis_name)
        return nn.relu(norm(name="bn")(x)).reshape(x.shape[0], -1)

    def stages(self):
        return {"stem": ("conv", "bn")}

    def layouts(self):
        arrays = {
            ("params", "conv", "kernel"): Stored("conv.weight", CONV),
            ("params", "conv", "bias"): Stored("conv.bias"),
            ("params", "bn", "scale"): Stored("bn.weight"),
            ("params", "bn", "bias"): Stored("bn.bias"),
            ("batch_stats", "bn", "mean"): Stored("bn.running_mean"),
            ("batch_stats", "bn", "var"): Stored("bn.running_var"),
        }
        return (published.Layout("tiny", arrays, (r"fc\..*", ".*num_batches_tracked")),)


def tensors(seed=0):
    """Weights of such a backbone, with a classifier, by their published names."""
    rng = np.random.default_rng(seed)
    shapes = {"conv.weight": (WIDTH, 3, 4, 4), "conv.bias": (WIDTH,), "fc.weight": (5, 24)}
    shapes |= {f"bn.{name}": (WIDTH,) for name in ("weight", "bias", "running_mean", "running_var")}
    found = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    found["bn.running_var"] = np.abs(found["bn.running_var"]) + 0.5
    return found | {"bn.num_batches_tracked": np.int64(7)}


def write(path, arrays=None, **metadata):
    """Writes them as a .safetensors file."""
    arrays = tensors() if arrays is None else arrays
    arrays = {name: np.ascontiguousarray(x) for name, x in arrays.items()}
    path.write_bytes(safetensors.numpy.save(arrays, metadata=metadata or None))
    return path
