"""Vision transformers: plain ones, and those of DINOv2, DINOv3, SigLIP 2 and CLIP."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from triplet_jax import errors
from triplet_jax.models import layers, positions, published, vit_layouts
from triplet_jax.models.vit_layers import (
    ACTIVATIONS,
    SMALL,
    AttentionPool,
    Block,
    PatchEmbedding,
    Tokens,
    layer_norm,
)

POOLS = ("class", "mean", "map")


class ViT(nn.Module):
    r"""A vision transformer (Dosovitskiy et al. 2021, https://arxiv.org/abs/2010.11929).

    An image is cut into patches; the tokens of the patches, behind a class token and registers, go
    through blocks of attention and of an MLP, and are pooled to one vector:

    $$x \leftarrow x + \lambda_1 \odot \mathrm{attention}(\mathrm{norm}(x)), \qquad
      x \leftarrow x + \lambda_2 \odot \mathrm{mlp}(\mathrm{norm}(x)).$$

    The attributes cover these families, whose names and sizes are in `vit_sizes.VITS`:
      - plain, as Augreg trained them (Steiner et al. 2022, https://arxiv.org/abs/2106.10270);
      - DINOv2 (Oquab et al. 2024, https://arxiv.org/abs/2304.07193), also with registers
        (Darcet et al. 2024, https://arxiv.org/abs/2309.16588);
      - DINOv3 (Siméoni et al. 2025, https://arxiv.org/abs/2508.10104);
      - SigLIP 2 (Tschannen et al. 2025, https://arxiv.org/abs/2502.14786), images of one size;
      - CLIP (Radford et al. 2021, https://arxiv.org/abs/2103.00020). Its features are those after
        the projection, because they are what CLIP compares; `output=0` leaves it out.

    An image may have any size that is a multiple of the patch size. Learned positions keep the
    grid that they were published for, and are resampled to the grid of the image.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from triplet_jax.models import vit
      >>> model = vit.ViT(hidden=16, blocks=2, heads=2, mlp=32, patch=4, grid=2)
      >>> def embed(x):
      ...     return model.init_with_output(jax.random.key(0), x, False)
      >>> features, variables = jax.eval_shape(embed, jnp.zeros((5, 12, 8, 3)))
      >>> features.shape
      (5, 16)

    Args:
      hidden: values of a token.
      blocks: how many blocks there are.
      heads: of attention, in each block.
      mlp: hidden units of a block's MLP.
      patch: rows and columns of a patch.
      published_patch: those of the published kernel, which is resized to `patch`
        (`positions.resize_patches`); 0 if they are the same.
      grid: rows and columns of patches that the learned positions are published for; 0 for rotary
        positions, which are computed.
      antialias: how the learned positions are resampled, see `positions.bicubic`.
      class_token: whether there is a class token.
      class_position: whether the class token has a learned position too.
      registers: how many tokens beside the class token and the patches there are.
      pre_norm: whether the tokens are normalised before the first block.
      patch_bias: whether the patch embedding has a bias.
      biases: which of queries "q", keys "k" and values "v" have a bias.
      layer_scale: the initial value of lambda; None for none.
      gated: whether the MLP is `down(silu(gate(x)) * up(x))`.
      activation: a name in `vit_layers.ACTIVATIONS`, of an MLP that is not gated.
      epsilon: of the layer normalisation.
      pool: "class" for the class token, "mean" for the mean of the patches, "map" for attention of
        a learned query to the patches, as in SigLIP.
      output: values of a linear map after the pooling, without a bias; 0 for none.
      family: by whose names the weights are published, see `vit_layouts.FAMILIES`.
      expects: what the published weights expect of an image.
      dtype: the type of the computation. Parameters, the statistics of normalisation, softmax and
        the returned features are float32.
      remat: whether the backward pass computes the blocks again, which saves memory.
      frozen: the number of leading stages that are frozen. Layer normalisation has no running
        statistics, so it changes nothing here; `stages` says whose gradients are stopped.
      stochastic_depth: the probability that an example skips a branch of the last block; it grows
        linearly from 0 (Huang et al. 2016, https://arxiv.org/abs/1603.09382).
    """

    hidden: int
    blocks: int
    heads: int
    mlp: int
    patch: int = 16
    published_patch: int = 0
    grid: int = 14
    antialias: bool = True
    class_token: bool = True
    class_position: bool = True
    registers: int = 0
    pre_norm: bool = False
    patch_bias: bool = True
    biases: str = "qkv"
    layer_scale: float | None = None
    gated: bool = False
    activation: str = "gelu"
    epsilon: float = 1e-6
    pool: str = "class"
    output: int = 0
    family: str = "vit"
    expects: published.Preprocessing = published.HALF
    dtype: Any = None
    remat: bool = False
    frozen: int = 0
    stochastic_depth: float = 0.0

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch height width channels"],
        train: bool,
        keys: Key[Array, "batch"] | None = None,
    ) -> Float[Array, "batch features"]:
        """Embeds a batch of images.

        Args:
          x: images, normalised as `expects` says.
          train: whether `keys` are needed, if examples skip branches.
          keys: a key for each image, by which it skips branches.

        Raises:
          InputError: a patch does not divide the images, a pool or an activation is not known, or
            `keys` are missing.
        """
        errors.check_known("pool", self.pool, POOLS)
        errors.check_known("activation", self.activation, ACTIVATIONS)
        self.check_size(x.shape[1:3])
        grid = (x.shape[1] // self.patch, x.shape[2] // self.patch)
        x = self._tokens(x, grid)
        rotations = None
        if not self.grid:
            rotations = positions.rotations(grid, self.hidden // self.heads)
        deepest = layers.rate_of_last(self.stochastic_depth, train, keys)
        make = nn.remat(Block) if self.remat else Block
        for i in range(self.blocks):
            block = make(
                number=i,
                skip=layers.rate_of_block(deepest, i, self.blocks),
                heads=self.heads,
                mlp=self.mlp,
                biases=self.biases,
                layer_scale=self.layer_scale,
                gated=self.gated,
                activation=self.activation,
                epsilon=self.epsilon,
                dtype=self.dtype,
                name=f"blocks_{i}",
            )
            x = block(x, rotations, keys)
        x = self._pooled(x)
        if self.output:
            x = nn.Dense(self.output, use_bias=False, dtype=self.dtype, name="projection")(x)
        return x.astype(jnp.float32)

    def _tokens(
        self, x: Float[Array, "batch height width channels"], grid: positions.Grid
    ) -> Tokens:
        """The input of the first block: class token, registers, patches."""
        published_patch = self.published_patch or self.patch
        x = PatchEmbedding(
            self.hidden,
            self.patch,
            published_patch,
            self.patch_bias,
            self.dtype,
            name="patch_embed",
        )(x)
        first = []
        if self.class_token:
            first.append(self.param("cls_token", SMALL, (1, 1, self.hidden)))
        if self.grid:
            with_class = int(self.class_token and self.class_position)
            shape = (1, with_class + self.grid**2, self.hidden)
            learned = self.param("pos_embed", SMALL, shape)
            old = (self.grid, self.grid)
            places = positions.resample(
                learned[0, with_class:], old, grid, antialias=self.antialias
            )
            x = x + places.astype(x.dtype)
            if with_class:
                first[0] = first[0] + learned[:, :1]
        if self.registers:
            first.append(self.param("reg_token", SMALL, (1, self.registers, self.hidden)))
        if first:
            first = jnp.concatenate(first, axis=1).astype(x.dtype)
            first = jnp.broadcast_to(first, (x.shape[0], *first.shape[1:]))
            x = jnp.concatenate([first, x], axis=1)
        return layer_norm(self.epsilon, self.dtype, "norm_pre")(x) if self.pre_norm else x

    def _pooled(self, x: Tokens) -> Float[Array, "batch hidden"]:
        """One vector for each image, after the last normalisation."""
        norm = layer_norm(self.epsilon, self.dtype, "norm")
        if self.pool == "class":
            return norm(x[:, 0])
        x = norm(x)[:, int(self.class_token) + self.registers :]
        if self.pool == "mean":
            return x.mean(axis=1)
        return AttentionPool(
            self.heads, self.mlp, self.activation, self.epsilon, self.dtype, name="attn_pool"
        )(x)

    def check_size(self, size: tuple[int, ...]) -> None:
        """Refuses images of so many rows and columns, if they are no whole number of patches.

        Raises:
          InputError: they are not; the message has the sizes near it that are.
        """
        patch = self.patch
        if min(size) >= patch and not any(side % patch for side in size):
            return
        near = sorted({max(1, side // patch + more) * patch for side in size for more in (0, 1)})
        raise errors.InputError(
            f"images of {size[0]} x {size[1]} are no whole number of patches of {patch} x {patch}."
            f" Sizes near it that are: {', '.join(map(str, near))}."
        )

    def stages(self) -> dict[str, tuple[str, ...]]:
        """The groups of parameters of each stage: "embeddings", "blocks.0" and so on, "norm"."""
        embeddings = ["patch_embed"]
        embeddings += ["cls_token"] * self.class_token + ["pos_embed"] * bool(self.grid)
        embeddings += ["reg_token"] * bool(self.registers) + ["norm_pre"] * self.pre_norm
        last = ["norm"] + ["attn_pool"] * (self.pool == "map") + ["projection"] * bool(self.output)
        blocks = {f"blocks.{i}": (f"blocks_{i}",) for i in range(self.blocks)}
        return {"embeddings": tuple(embeddings), **blocks, "norm": tuple(last)}

    def layouts(self) -> tuple[published.Layout, ...]:
        """How the weights are published: by timm, and by transformers."""
        return vit_layouts.layouts(self)
