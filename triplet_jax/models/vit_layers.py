"""Layers of vision transformers: patches, attention, the MLP, and the block of the two."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from triplet_jax.models import layers, positions

Tokens = Float[Array, "batch tokens hidden"]
Rotations = tuple[Float[Array, "places dim"], Float[Array, "places dim"]]

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": lambda x: nn.gelu(x, approximate=False),
    "gelu_tanh": lambda x: nn.gelu(x, approximate=True),
    "quick_gelu": lambda x: x * nn.sigmoid(1.702 * x),
}
"""GELU, its approximation by tanh, and CLIP's by a logistic function."""

SMALL = nn.initializers.truncated_normal(0.02)


class PatchEmbedding(nn.Module):
    """A linear map of each patch, row by row.

    Args:
      hidden: values of a token.
      patch: rows and columns of a patch.
      published_patch: those of the kernel.
      bias: whether there is a bias.
      dtype: the type of the computation.
    """

    hidden: int
    patch: int
    published_patch: int
    bias: bool
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "batch height width channels"]) -> Tokens:
        size, (batch, height, width, channels) = self.patch, x.shape
        shape = (self.published_patch, self.published_patch, channels, self.hidden)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        kernel = positions.resize_patches(kernel, size).reshape(-1, self.hidden)
        # A matrix product is faster than the convolution that it is.
        x = x.reshape(batch, height // size, size, width // size, size, channels)
        x = x.swapaxes(2, 3).reshape(batch, -1, kernel.shape[0])
        dtype = self.dtype or x.dtype
        x = x.astype(dtype) @ kernel.astype(dtype)
        if self.bias:
            x = x + self.param("bias", nn.initializers.zeros, (self.hidden,)).astype(dtype)
        return x


class Block(nn.Module):
    """Attention and an MLP, each added to its input.

    Args:
      number: of the block.
      skip: the probability that an image skips a branch.
      heads, mlp, biases, layer_scale, gated, activation, epsilon, dtype: those of `vit.ViT`.
    """

    number: int
    skip: float
    heads: int
    mlp: int
    biases: str
    layer_scale: float | None
    gated: bool
    activation: str
    epsilon: float
    dtype: Any

    @nn.compact
    def __call__(
        self,
        x: Tokens,
        rotations: Rotations | None,
        keys: Key[Array, "batch"] | None,
    ) -> Tokens:
        """Maps tokens to tokens.

        Args:
          x: the tokens.
          rotations: of the queries and keys of patches, if positions are rotary.
          keys: a key for each image; needed to skip.
        """
        width = x.shape[-1]
        y = Attention(self.heads, self.biases, self.dtype, name="attn")(
            layer_norm(self.epsilon, self.dtype, "norm1")(x), rotations
        )
        x = x + self._branch(y, 0, keys)
        y = layer_norm(self.epsilon, self.dtype, "norm2")(x)
        if self.gated:
            y = GatedMLP(self.mlp, width, self.dtype, name="mlp")(y)
        else:
            y = MLP(self.mlp, width, self.activation, self.dtype, name="mlp")(y)
        return x + self._branch(y, 1, keys)

    def _branch(self, y: Tokens, branch: int, keys: Key[Array, "batch"] | None) -> Tokens:
        """What is added of one of the two branches."""
        if self.layer_scale is not None:
            init = nn.initializers.constant(self.layer_scale)
            y = y * self.param(f"gamma_{branch + 1}", init, (y.shape[-1],)).astype(y.dtype)
        return layers.skip(y, keys, self.skip, block=2 * self.number + branch)


class Attention(nn.Module):
    """Attention of every token to every token, in several heads; softmax is in float32.

    Args:
      heads: how many there are.
      biases: which of "q", "k" and "v" have a bias.
      dtype: the type of the computation.
    """

    heads: int
    biases: str
    dtype: Any

    @nn.compact
    def __call__(self, x: Tokens, rotations: Rotations | None = None) -> Tokens:
        width = x.shape[-1]
        q, k, v = (
            _heads(nn.Dense(width, letter in self.biases, self.dtype, name=letter)(x), self.heads)
            for letter in "qkv"
        )
        if rotations is not None:
            q, k = (positions.rotate(one, *rotations) for one in (q, k))
        x = jax.nn.dot_product_attention(q, k, v).reshape(x.shape)
        return nn.Dense(width, dtype=self.dtype, name="proj")(x)


class AttentionPool(nn.Module):
    """SigLIP's head: a learned query attends to the tokens, and an MLP is added to what it finds.

    The multi-head attention pooling of Zhai et al. 2022, https://arxiv.org/abs/2106.04560.

    Args:
      heads: of attention.
      mlp: hidden units of the MLP.
      activation: a name in `ACTIVATIONS`.
      epsilon: of the layer normalisation.
      dtype: the type of the computation.
    """

    heads: int
    mlp: int
    activation: str
    epsilon: float
    dtype: Any

    @nn.compact
    def __call__(self, x: Tokens) -> Float[Array, "batch hidden"]:
        width = x.shape[-1]
        query = self.param("latent", SMALL, (1, 1, width)).astype(x.dtype)
        q, k, v = (
            _heads(nn.Dense(width, dtype=self.dtype, name=name)(y), self.heads)
            for name, y in {"q": query, "k": x, "v": x}.items()
        )
        q = jnp.broadcast_to(q, (x.shape[0], *q.shape[1:]))
        x = jax.nn.dot_product_attention(q, k, v).reshape(-1, width)
        x = nn.Dense(width, dtype=self.dtype, name="proj")(x)
        y = layer_norm(self.epsilon, self.dtype, "norm")(x)
        return x + MLP(self.mlp, width, self.activation, self.dtype, name="mlp")(y)


class MLP(nn.Module):
    """Two linear maps with an activation between them."""

    hidden: int
    width: int
    activation: str
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "... width"]) -> Float[Array, "... width"]:
        x = nn.Dense(self.hidden, dtype=self.dtype, name="fc1")(x)
        return nn.Dense(self.width, dtype=self.dtype, name="fc2")(ACTIVATIONS[self.activation](x))


class GatedMLP(nn.Module):
    """SwiGLU: `down(silu(gate(x)) * up(x))` (Shazeer 2020, https://arxiv.org/abs/2002.05202)."""

    hidden: int
    width: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "... width"]) -> Float[Array, "... width"]:
        gate, up = (nn.Dense(self.hidden, dtype=self.dtype, name=n)(x) for n in ("gate", "up"))
        return nn.Dense(self.width, dtype=self.dtype, name="down")(nn.silu(gate) * up)


def layer_norm(epsilon: float, dtype: Any, name: str) -> nn.LayerNorm:
    """A layer normalisation of this name, whose variance keeps its digits."""
    return nn.LayerNorm(epsilon=epsilon, dtype=dtype, use_fast_variance=False, name=name)


def _heads(
    x: Float[Array, "batch tokens hidden"], heads: int
) -> Float[Array, "batch tokens heads dim"]:
    return x.reshape(*x.shape[:-1], heads, -1)
