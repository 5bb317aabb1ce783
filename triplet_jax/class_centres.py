"""Several centres for each class, where losses against proxies or class weights have one.

The photographs of a class may form several groups, and some may be wrong. With a few centres, a
photograph has to be near only one of them. This changes the distance to a class and not the loss:
`to_centres` is a metric for every loss of similarities. It compares rows that hold one vector for
each centre.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from triplet_jax import distances, errors
from triplet_jax.xla import products


def to_centres(*, centres: int, temperature: float) -> distances.Metric:
    """`1 - s`, with the cosine s to the nearest of a class's centres, or a mean led by it.

        s = max over k of cos(a_k, b_k)                                where temperature = 0
        s = sum_k w_k cos(a_k, b_k),  w = softmax of cos / temperature      elsewhere

    A row holds `centres` vectors of one length, one after the other. References hold the centres of
    a class; `repeated` makes such rows of embeddings. The nearest centre is that of sub-centre
    ArcFace, Deng, Guo, Liu, Gong and Zafeiriou 2020, https://doi.org/10.1007/978-3-030-58621-8_43;
    the mean is that of SoftTriple, Qian et al. 2019, https://arxiv.org/abs/1909.05235.

    Args:
      centres: how many each class has.
      temperature: of the softmax; 0 for the nearest alone.

    Raises:
      InputError: there are no centres, the temperature is below 0, or a row cannot be divided.

    Example:
      The anchor is compared with two classes of two centres. A loss takes the metric as
      `metric=class_centres.to_centres, metric_params={"centres": 2, "temperature": 0.0}`.

      >>> import jax.numpy as jnp
      >>> from triplet_jax import class_centres, distances
      >>> anchor = class_centres.repeated(jnp.array([[1.0, 0.0]]), 2)
      >>> classes = jnp.array([[0.0, 1.0, 2.0, 0.0], [0.0, 1.0, -1.0, 0.0]])
      >>> to_centres = class_centres.to_centres
      >>> print(distances.pairwise(anchor, classes, to_centres, centres=2, temperature=0.0))
      [[0. 1.]]
    """
    if centres < 1:
        raise errors.InputError(f"centres={centres} must be at least 1.")
    if temperature < 0:
        raise errors.InputError(f"temperature={temperature} must be at least 0.")

    def parts(x):
        if x.shape[-1] % centres:
            raise errors.InputError(
                f"rows of {x.shape[-1]} values can't hold centres={centres} vectors of one length:"
                " pass embeddings through class_centres.repeated, and the centres of a class in one"
                " row."
            )
        return x.reshape(*x.shape[:-1], centres, -1)

    def prepare(x):
        split = parts(x)
        return distances.unit(split.reshape(-1, split.shape[-1])).reshape(x.shape)

    def pooled(cosines):
        """`1 - s` from the cosines along the last axis."""
        if temperature == 0:
            return 1.0 - jnp.max(cosines, axis=-1)
        return 1.0 - jnp.sum(jax.nn.softmax(cosines / temperature, axis=-1) * cosines, axis=-1)

    def pairwise(a, columns, precision=products.FULL):
        a, columns = precision.rounded(a), precision.rounded(columns)
        each = jax.vmap(precision.product, in_axes=(1, 1), out_axes=2)
        cosines = each(parts(a), parts(columns.T).transpose(2, 1, 0))
        return pooled(precision.with_rounded_slopes(cosines))

    def between(a, b):
        return pooled(jnp.sum(parts(a) * parts(b), axis=-1))

    # With several centres, each pair takes more than one number, so that tiles have fewer anchors.
    return distances.Metric(prepare, pairwise, between, by_product=centres == 1)


def repeated(x: Float[Array, "batch dim"], centres: int) -> Float[Array, "batch _"]:
    """Rows that hold an embedding once for each centre that it is compared with.

    Args:
      x: the embeddings.
      centres: how many centres a class has, at least 1.

    Example:
      >>> import jax.numpy as jnp
      >>> from triplet_jax import class_centres
      >>> print(class_centres.repeated(jnp.array([[1.0, 2.0]]), 2))
      [[1. 2. 1. 2.]]
    """
    return jnp.tile(x, (1, centres))
