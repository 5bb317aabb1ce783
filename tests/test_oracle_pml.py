"""Against PyTorch Metric Learning, where it defines the same thing. Run by `make oracle`."""

import jax.numpy as jnp
import numpy as np
import pytest

from triplet_jax import evaluation, losses

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


def compare(torch, ours, miner, x, labels):
    from pytorch_metric_learning import distances, reducers
    from pytorch_metric_learning import losses as pml

    leaf = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    distance = distances.LpDistance(normalize_embeddings=False)
    loss = pml.TripletMarginLoss(
        margin=0.2, distance=distance, reducer=reducers.AvgNonZeroReducer()
    )
    found = torch.tensor(labels)
    value = loss(leaf, found, miner(distance)(leaf, found) if miner else None)
    value.backward()
    (mine, stats), gradient = ours(jnp.asarray(x, jnp.float32), labels)
    assert float(mine) == pytest.approx(value.item(), rel=1e-4)
    np.testing.assert_allclose(gradient, leaf.grad.numpy(), atol=1e-4)
    return stats


def our_loss(**settings):
    import jax

    return jax.value_and_grad(
        lambda x, labels: losses.triplet_loss(x, labels, **settings), has_aux=True
    )


@pytest.mark.parametrize("seed", range(3))
def test_batch_all_is_the_triplet_loss_without_a_miner(torch, seed):
    x, labels = batch(seed)
    stats = compare(torch, our_loss(miner="batch_all"), None, x, labels)
    same = labels[:, None] == labels[None, :]
    expected = sum((same[i].sum() - 1) * (~same[i]).sum() for i in range(len(labels)))
    assert stats["num_valid"] == expected


@pytest.mark.parametrize("seed", range(3))
def test_batch_hard_is_batch_hard_miner(torch, seed):
    from pytorch_metric_learning import miners

    x, labels = batch(seed)
    compare(
        torch,
        our_loss(miner="batch_hard"),
        lambda distance: miners.BatchHardMiner(distance=distance),
        x,
        labels,
    )


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("classes", [10, 150])
def test_retrieval_is_accuracy_calculator(torch, seed, classes):
    from pytorch_metric_learning.distances import LpDistance
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
    from pytorch_metric_learning.utils.inference import CustomKNN

    x, labels = batch(seed, n=300, classes=classes)
    calculator = AccuracyCalculator(
        include=("precision_at_1", "r_precision", "mean_average_precision_at_r"),
        k="max_bin_count",
        knn_func=CustomKNN(LpDistance(normalize_embeddings=False)),
        device=torch.device("cpu"),
    )
    theirs = calculator.get_accuracy(torch.tensor(x), torch.tensor(labels))
    ours = evaluation.retrieval(x.astype(np.float32), labels)
    assert ours["precision_at_1"] == pytest.approx(theirs["precision_at_1"], abs=1e-6)
    assert ours["r_precision"] == pytest.approx(theirs["r_precision"], abs=1e-6)
    assert ours["map_at_r"] == pytest.approx(theirs["mean_average_precision_at_r"], abs=1e-6)
