"""Against PyTorch Metric Learning, where it defines the same thing. Run by `make oracle`."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support import cases, oracles
from triplet_jax import contrastive, evaluation, losses, mining

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.filterwarnings("ignore"),  # those of torch and its friends
]


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="make oracle installs it")


def batch(seed, n=24, dim=5, classes=6):
    random = np.random.default_rng(seed)
    x = random.normal(size=(n, dim))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    labels = random.integers(0, classes, n)
    labels[0] = classes  # a class of one
    return x, labels


def unnormalised():
    from pytorch_metric_learning.distances import LpDistance

    return LpDistance(normalize_embeddings=False)


def theirs(torch, loss, miner, x, labels):
    """Value, gradient and triplets of a loss and a miner of PML."""
    leaf = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    found = torch.tensor(labels)
    mined = miner(leaf, found) if miner else None
    value = loss(leaf, found, mined)
    value.backward()
    return value.item(), leaf.grad.numpy(), mined


@functools.cache
def compiled(**settings):
    """The loss with settings, and its gradient: compiled once for all batches of a test."""
    run = functools.partial(losses.triplet_loss, **settings)
    return jax.jit(jax.value_and_grad(run, has_aux=True))


def ours(x, labels, **settings):
    (loss, stats), gradient = compiled(**settings)(jnp.asarray(x, jnp.float32), labels)
    return float(loss), gradient, stats


def pml_loss(margin=0.2, **settings):
    from pytorch_metric_learning import losses as pml
    from pytorch_metric_learning import reducers

    return pml.TripletMarginLoss(
        margin=margin, distance=unnormalised(), reducer=reducers.AvgNonZeroReducer(), **settings
    )


def margin_miner(kind):
    return lambda miners: miners.TripletMarginMiner(
        margin=0.2, type_of_triplets=kind, distance=unnormalised()
    )


PAIRS = {
    "no miner": ("batch_all", None),
    # All that violate the margin.
    "all": (functools.partial(mining.band, low=-np.inf, high=0.2), margin_miner("all")),
    "hard": ("hard", margin_miner("hard")),
    "semihard": ("semi_hard_band", margin_miner("semihard")),
    "easy": ("easy", margin_miner("easy")),
    "BatchHardMiner": ("batch_hard", lambda m: m.BatchHardMiner(distance=unnormalised())),
    "BatchEasyHardMiner": (
        "semi_hard_hardest_beyond",
        lambda m: m.BatchEasyHardMiner(distance=unnormalised()),
    ),
    "BatchEasyHardMiner easy hard": (
        "easy_positive_hard",
        lambda m: m.BatchEasyHardMiner(
            pos_strategy="easy", neg_strategy="hard", distance=unnormalised()
        ),
    ),
    "AngularMiner": ("angular", lambda m: m.AngularMiner(angle=20)),
}


@pytest.mark.parametrize(
    ("name", "smooth"),
    cases.mostly_slow(
        [(name, smooth) for name in PAIRS for smooth in (False, True)],
        [*[(name, False) for name in PAIRS], ("no miner", True), ("BatchHardMiner", True)],
    ),
)
def test_a_miner_finds_the_same_triplets(torch, name, smooth):
    from pytorch_metric_learning import miners

    rule, make = PAIRS[name]
    miner = make(miners) if make else None
    # Easy triplets cost a hinge of their margin nothing.
    margin = 0.6 if name == "easy" else 0.2
    penalty = "soft_margin" if smooth else "hinge"
    # Their soft margin has a margin too.
    theirs_loss = pml_loss(0.0, smooth_loss=True) if smooth else pml_loss(margin)
    for seed in range(3):
        x, labels = batch(seed)
        value, gradient, mined = theirs(torch, theirs_loss, miner, x, labels)
        loss, slope, stats = ours(x, labels, miner=rule, penalty=penalty, margin=margin)
        if mined is not None:
            assert stats["num_valid"] == len(mined[0]) > 0
        assert loss == pytest.approx(value, rel=1e-4)
        np.testing.assert_allclose(slope, gradient, atol=1e-4)


@pytest.mark.parametrize("miner", ["batch_all", "batch_hard"])
def test_anchor_swap_is_swap(torch, miner):
    from pytorch_metric_learning import miners

    theirs_miner = PAIRS["BatchHardMiner"][1](miners) if miner == "batch_hard" else None
    x, labels = batch(0)
    value, gradient, _ = theirs(torch, pml_loss(swap=True), theirs_miner, x, labels)
    loss, slope, _ = ours(x, labels, miner=miner, penalty="anchor_swap")
    assert loss == pytest.approx(value, rel=1e-4)
    np.testing.assert_allclose(slope, gradient, atol=1e-4)


@pytest.mark.parametrize("epsilon", [0.1, 0.0])
def test_multi_similarity_finds_the_pairs_of_its_miner(torch, epsilon):
    from pytorch_metric_learning import miners
    from pytorch_metric_learning.utils import loss_and_miner_utils as utils

    x, labels = batch(1)
    miner = miners.MultiSimilarityMiner(epsilon=epsilon, distance=unnormalised())
    pairs = miner(torch.tensor(x), torch.tensor(labels))
    triplets = utils.convert_to_triplets(pairs, torch.tensor(labels), torch.tensor(labels))
    rule = functools.partial(mining.multi_similarity, epsilon=epsilon)
    loss, _, stats = ours(x, labels, miner=rule)
    assert stats["num_valid"] == len(triplets[0]) > 0
    value = pml_loss()(torch.tensor(x), torch.tensor(labels), triplets)
    assert loss == pytest.approx(value.item(), rel=1e-4)


@pytest.mark.parametrize("miner", ["batch_all", "batch_hard"])
def test_margin_based_is_margin_loss(torch, miner):
    from pytorch_metric_learning import losses as pml
    from pytorch_metric_learning import miners, reducers
    from pytorch_metric_learning.utils import loss_and_miner_utils as utils

    # Theirs sums over the two pairs of every triplet, and its reducer divides by the pairs
    # that cost something; a sum over triplets takes the denominators away.
    theirs_miner = PAIRS["BatchHardMiner"][1](miners)
    if miner == "batch_all":
        theirs_miner = lambda _, labels: utils.get_all_triplets_indices(labels)  # noqa: E731
    x, labels = batch(2)
    loss = pml.MarginLoss(
        margin=0.2, nu=0, beta=1.2, distance=unnormalised(), reducer=reducers.SumReducer()
    )
    value, gradient, mined = theirs(torch, loss, theirs_miner, x, labels)
    found, slope, stats = ours(x, labels, miner=miner, penalty="margin_based", average="valid")
    assert stats["num_valid"] == len(mined[0])
    assert found * len(mined[0]) == pytest.approx(value, rel=1e-4)
    np.testing.assert_allclose(slope * len(mined[0]), gradient, rtol=1e-3, atol=1e-3)


def masked(d, where, best, otherwise):
    return np.where(where.any(1), best(np.where(where, d, otherwise), axis=1), np.nan)


@pytest.mark.parametrize("seed", range(3))
def test_semi_hard_of_tensorflow_addons(seed):
    """`triplet_semihard_loss`, in numpy as it is written there, of distances not squared."""
    x, labels = batch(seed)
    d = np.sqrt(((x[:, None] - x[None]) ** 2).sum(2))
    same = labels[:, None] == labels[None, :]
    n = len(x)
    # Row `j * n + i` of the tiled matrix is anchor i with positive j.
    tiled = np.tile(d, (n, 1))
    farther = np.tile(~same, (n, 1)) & (tiled > d.T.reshape(-1, 1))
    is_final = farther.any(1).reshape(n, n).T
    outside = masked(tiled, farther, np.min, np.inf).reshape(n, n).T
    inside = np.repeat(masked(d, ~same, np.max, -np.inf)[:, None], n, axis=1)
    value = 0.2 + d - np.where(is_final, outside, inside)
    positive = same & ~np.eye(n, dtype=bool)
    expected = np.maximum(value, 0)[positive].sum() / positive.sum()
    loss, _, stats = ours(x, labels, miner="semi_hard_tfa", average="valid")
    assert loss == pytest.approx(expected, rel=1e-5)
    assert stats["num_valid"] == positive.sum()


@pytest.mark.parametrize("seed", range(3))
def test_semi_hard_of_tensorflow_similarity(seed):
    """Hard positives and semi-hard negatives, of anchors that have a positive."""
    x, labels = batch(seed)
    d = np.sqrt(((x[:, None] - x[None]) ** 2).sum(2))
    same = labels[:, None] == labels[None, :]
    positive = same & ~np.eye(len(x), dtype=bool)
    d_ap = masked(d, positive, np.max, -np.inf)
    farther = ~same & (d > np.nan_to_num(d_ap)[:, None])
    d_an = np.where(
        farther.any(1), masked(d, farther, np.min, np.inf), masked(d, ~same, np.max, -np.inf)
    )
    expected = np.maximum(d_ap - d_an + 0.2, 0)[positive.any(1)].mean()
    loss, _, stats = ours(x, labels, miner="semi_hard_tfsim", average="valid")
    assert loss == pytest.approx(expected, rel=1e-5)
    assert stats["num_valid"] == positive.any(1).sum()


@pytest.mark.parametrize("name", ["batch_hard", "semi_hard_tfa", "batch_all"])
def test_losses_of_sentence_transformers(torch, name):
    from sentence_transformers.sentence_transformer import losses as theirs

    x, labels = batch(0)
    labels[0] = labels[1]  # there a class of one counts
    kind = {
        "batch_hard": theirs.BatchHardTripletLoss,
        "semi_hard_tfa": theirs.BatchSemiHardTripletLoss,
        "batch_all": theirs.BatchAllTripletLoss,
    }[name]
    loss = kind(model=None, margin=0.2)
    method = next(m for m in dir(loss) if m.startswith("batch_") and m.endswith("triplet_loss"))
    value = getattr(loss, method)(torch.tensor(labels), torch.tensor(x))
    average = "active" if name == "batch_all" else "valid"
    found, _, _ = ours(x, labels, miner=name, average=average)
    assert found == pytest.approx(value.item(), rel=1e-4)


@pytest.mark.parametrize("swap", [False, True])
def test_given_triplets_are_those_of_torch(torch, swap):
    x = np.random.default_rng(7).normal(size=(3, 20, 5)).astype(np.float32)
    theirs = torch.nn.TripletMarginLoss(margin=0.4, swap=swap, eps=0.0)
    leaves = [torch.tensor(part, requires_grad=True) for part in x]
    expected = theirs(*leaves)
    expected.backward()

    def value(x):
        penalty = "anchor_swap" if swap else "hinge"
        loss, _ = losses.of_triplets(*x, margin=0.4, penalty=penalty, average="valid")
        return loss

    found, gradient = jax.value_and_grad(value)(jnp.asarray(x))
    assert float(found) == pytest.approx(expected.item(), rel=1e-5)
    np.testing.assert_allclose(gradient, [leaf.grad for leaf in leaves], atol=1e-6)


def test_optax_on_given_triplets():
    optax = pytest.importorskip("optax")
    x, labels = batch(0)
    chosen = np.array(oracles.mine(x, labels, "semi_hard")).T
    anchors, positives, negatives = (jnp.asarray(x[rows], jnp.float32) for rows in chosen)
    expected = optax.losses.triplet_margin_loss(anchors, positives, negatives, margin=0.2)
    loss, _, _ = ours(x, labels, average="valid")
    assert loss == pytest.approx(float(jnp.mean(expected)), rel=1e-4)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("classes", [10, 150])
def test_retrieval_is_accuracy_calculator(torch, seed, classes):
    from pytorch_metric_learning.distances import LpDistance
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
    from pytorch_metric_learning.utils.inference import CustomKNN

    x, labels = batch(seed, n=300, classes=classes)
    found = evaluation.retrieval(x.astype(np.float32), labels, whole_ranking=True)
    for neighbours, theirs in (
        ("max_bin_count", ("precision_at_1", "r_precision", "mean_average_precision_at_r")),
        (len(x) - 1, ("mean_average_precision", "mean_reciprocal_rank")),
    ):
        calculator = AccuracyCalculator(
            include=theirs,
            k=neighbours,
            knn_func=CustomKNN(LpDistance(normalize_embeddings=False)),
            device=torch.device("cpu"),
        )
        expected = calculator.get_accuracy(torch.tensor(x), torch.tensor(labels))
        for name in theirs:
            ours = name.replace("mean_average_precision", "map").replace(
                "mean_reciprocal_rank", "mrr"
            )
            assert found[ours] == pytest.approx(expected[name], abs=1e-6), name


# -- losses of whole rows of distances ---------------------------------------------------


def their_contrastive(name):
    from pytorch_metric_learning import losses as pml

    return {
        "pairs": lambda: pml.ContrastiveLoss(neg_margin=1, distance=unnormalised()),
        "info_nce": lambda: pml.NTXentLoss(temperature=0.1),
        "supervised_contrastive": lambda: pml.SupConLoss(temperature=0.1),
        "lifted": lambda: pml.GeneralizedLiftedStructureLoss(distance=unnormalised()),
        "multi_similarity": lambda: pml.MultiSimilarityLoss(alpha=2, beta=50, base=0.5),
        "circle": lambda: pml.CircleLoss(m=0.25, gamma=256),
    }[name]()


@pytest.mark.parametrize(
    "name", ["pairs", "info_nce", "supervised_contrastive", "lifted", "multi_similarity", "circle"]
)
def test_contrastive_losses_are_theirs(torch, name):
    loss = contrastive.LOSSES[name]
    if name == "pairs":
        loss = functools.partial(loss, power=1.0)
    metric = "euclidean" if name in ("pairs", "lifted") else "cosine"
    run = functools.partial(contrastive.contrastive_loss, loss=loss, metric=metric)
    differentiate = jax.jit(jax.value_and_grad(run, has_aux=True))
    for seed in range(3):
        x, _ = batch(seed)
        # Of an anchor without positives they and we think differently.
        labels = np.random.default_rng(seed).permutation(np.repeat([0, 1, 2, 3], [2, 4, 8, 10]))
        value, gradient, _ = theirs(torch, their_contrastive(name), None, x, labels)
        (found, _), slope = differentiate(jnp.asarray(x, jnp.float32), labels)
        assert float(found) == pytest.approx(value, rel=1e-4)
        np.testing.assert_allclose(slope, gradient, atol=2e-4 * max(1, np.abs(gradient).max()))


def test_n_pairs_is_theirs(torch):
    from pytorch_metric_learning import distances
    from pytorch_metric_learning import losses as pml

    x, _ = batch(0)
    labels = np.arange(len(x)) // 2
    theirs_loss = pml.NPairsLoss(
        distance=distances.DotProductSimilarity(normalize_embeddings=False)
    )
    value, gradient, _ = theirs(torch, theirs_loss, None, x, labels)

    def ours_loss(x):
        beside = {"references": x[1::2], "reference_labels": labels[1::2]}
        return contrastive.contrastive_loss(
            x[0::2], labels[0::2], loss="n_pairs", metric="dot", **beside
        )

    (found, _), slope = jax.value_and_grad(ours_loss, has_aux=True)(jnp.asarray(x, jnp.float32))
    assert float(found) == pytest.approx(value, rel=1e-5)
    np.testing.assert_allclose(slope, gradient, atol=1e-5)


@pytest.mark.parametrize("name", ["proxy_nca", "proxy_anchor", "softmax", "arcface"])
def test_losses_with_proxies_are_theirs(torch, name):
    from pytorch_metric_learning import losses as pml

    x, labels = batch(0)
    classes, dim = labels.max() + 1, x.shape[1]
    theirs_loss = {
        "proxy_nca": lambda: pml.ProxyNCALoss(classes, dim, softmax_scale=9),
        "proxy_anchor": lambda: pml.ProxyAnchorLoss(classes, dim, margin=0.1, alpha=32),
        "softmax": lambda: pml.NormalizedSoftmaxLoss(classes, dim, temperature=0.3),
        "arcface": lambda: pml.ArcFaceLoss(classes, dim, margin=np.degrees(0.5), scale=64),
    }[name]().double()
    proxies = np.random.default_rng(1).normal(size=(classes, dim))
    columns = name in ("softmax", "arcface")
    weights = theirs_loss.W if columns else theirs_loss.proxies
    weights.data = torch.tensor(proxies.T if columns else proxies)
    value, gradient, _ = theirs(torch, theirs_loss, None, x, labels)

    def ours_loss(x, proxies):
        own = np.arange(classes)
        if name == "proxy_anchor":
            return contrastive.contrastive_loss(
                proxies, own, loss=name, references=x, reference_labels=labels
            )
        # For unit vectors 9 d^2 = 18 - 18 cos.
        temperature = {"proxy_nca": 1 / 18, "softmax": 0.3}.get(name)
        nce = functools.partial(contrastive.info_nce, temperature=temperature)
        loss = nce if temperature else name
        return contrastive.contrastive_loss(
            x, labels, loss=loss, references=proxies, reference_labels=own
        )

    arrays = jnp.asarray(x, jnp.float32), jnp.asarray(proxies, jnp.float32)
    (found, _), slopes = jax.jit(jax.value_and_grad(ours_loss, (0, 1), has_aux=True))(*arrays)
    assert float(found) == pytest.approx(value, rel=1e-4)
    scale = max(1, np.abs(gradient).max())
    np.testing.assert_allclose(slopes[0], gradient, atol=3e-4 * scale)
    of_weights = weights.grad.numpy()
    of_weights = of_weights.T if columns else of_weights
    np.testing.assert_allclose(slopes[1], of_weights, atol=3e-4 * scale)
