"""Conv4, the small convolutional backbone of the few-shot literature."""

import flax.linen as nn
from jaxtyping import Array, Float

from triplet_jax.models import layers
from triplet_jax.models.layers import Conv


class Conv4(nn.Module):
    """Four blocks of 3 x 3 convolution, normalisation, ReLU and 2 x 2 max pooling.

    The encoder of the few-shot literature (Vinyals et al. 2016; Snell et al. 2017), who
    use 64 filters. `depth` blocks; pooling stops where an image has no two rows left.
    """

    width: int = 64
    depth: int = 4
    norm: str = "batch"
    axis_name: str | None = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"], train: bool
    ) -> Float[Array, "batch features"]:
        norm = layers.make_norm(self.norm, train=train, axis_name=self.axis_name)
        for _ in range(self.depth):
            x = Conv(self.width, (3, 3))(x)
            x = nn.relu(norm()(x))
            if min(x.shape[1:3]) >= 2:
                x = layers.max_pool_2x2(x)
        return x.reshape(x.shape[0], -1)
