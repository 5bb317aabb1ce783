"""Against sentence-transformers, where it defines the same thing. Run by `make oracle`."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support import cases
from triplet_jax import contrastive, losses

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.filterwarnings("ignore"),  # those of torch and its friends
]
QUERIES, DIM = 12, 5


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="make oracle installs it")


@pytest.fixture(scope="module")
def their_losses(torch):
    name = "sentence_transformers.sentence_transformer.losses"
    return pytest.importorskip(name, reason="make oracle installs it")


def pairs(seed):
    """Unit vectors: queries, and for each the document that answers it, which is near."""
    random = np.random.default_rng(seed)
    queries = random.normal(size=(QUERIES, DIM))
    documents = queries + random.normal(size=(QUERIES, DIM))
    return [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (queries, documents)]


def assert_ours_is_theirs(torch, loss, theirs):
    """Value and gradient of each query against all documents."""
    own = np.arange(QUERIES)

    def ours(queries, documents):
        return contrastive.contrastive_loss(
            queries, own, loss=loss, references=documents, reference_labels=own
        )

    differentiate = jax.jit(jax.value_and_grad(ours, (0, 1), has_aux=True))
    for seed in range(3):
        rows = pairs(seed)
        leaves = [torch.tensor(x, requires_grad=True) for x in rows]
        value = theirs(leaves)
        value.backward()
        (found, _), slopes = differentiate(*(jnp.asarray(x, jnp.float32) for x in rows))
        assert float(found) == pytest.approx(value.item(), rel=1e-4)
        for slope, leaf in zip(slopes, leaves, strict=True):
            np.testing.assert_allclose(slope, leaf.grad.numpy(), atol=1e-4)


# With pairs alone, all negatives are in the batch.
@pytest.mark.parametrize("mode", ["all_negatives", "in_batch_negatives"])
@pytest.mark.parametrize("strength", [0.0, 5.0, 9.0])
def test_hardness_is_theirs(torch, their_losses, mode, strength):
    theirs = their_losses.MultipleNegativesRankingLoss(
        torch.nn.Identity(), scale=20.0, hardness_mode=mode, hardness_strength=strength
    )
    loss = functools.partial(contrastive.info_nce, temperature=0.05, hardness_strength=strength)
    assert_ours_is_theirs(
        torch, loss, lambda leaves: theirs.compute_loss_from_embeddings(leaves, None)
    )


# Within the rows of an encoder too: our loss is the mean of theirs for queries and for documents.
def test_rows_of_the_same_encoder_are_negatives_as_theirs_are(torch, their_losses):
    theirs = their_losses.MultipleNegativesRankingLoss(
        torch.nn.Identity(), scale=10.0, directions=("query_to_doc", "query_to_query")
    )
    loss = jax.jit(contrastive.contrastive_loss)
    for seed in range(3):
        queries, documents = pairs(seed)
        both = [torch.tensor(queries), torch.tensor(documents)]
        expected = [theirs.compute_loss_from_embeddings(two, None) for two in (both, both[::-1])]
        rows, own = np.stack([queries, documents], axis=1).reshape(-1, DIM), np.arange(QUERIES)
        found, _ = loss(jnp.asarray(rows, jnp.float32), own.repeat(2))
        assert float(found) == pytest.approx(np.mean(expected), rel=1e-5)


@pytest.fixture(scope="module")
def given_embeddings(torch):
    """What they take for a model, whose embeddings are what it is given."""
    transformers = pytest.importorskip("transformers", reason="make oracle installs it")
    tokenizers = pytest.importorskip("tokenizers", reason="make oracle installs it")
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0}, unk_token="a"))

    class Model(torch.nn.Module):
        tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words)
        max_seq_length = 1

        def forward(self, features):
            return {"sentence_embedding": features["x"]}

    return Model()


@pytest.mark.parametrize("kind", ["absolute", "relative"])
@pytest.mark.parametrize("margin", cases.mostly_slow([-0.3, 0.0, 0.05, 0.4], [-0.3, 0.05]))
def test_positive_aware_margins_are_theirs(torch, their_losses, given_embeddings, kind, margin):
    theirs = their_losses.GISTEmbedLoss(
        given_embeddings,
        given_embeddings,  # the model is its own guide
        temperature=0.1,
        margin_strategy=kind,
        margin=margin,
        contrast_anchors=False,
        contrast_positives=False,
    )
    margins = {"absolute_margin": 0.0, "relative_margin": 0.0} | {f"{kind}_margin": margin}
    loss = functools.partial(contrastive.positive_aware, temperature=0.1, **margins)
    assert_ours_is_theirs(torch, loss, lambda leaves: theirs([{"x": x} for x in leaves], None))


def test_given_triplets_are_theirs(torch, their_losses):
    theirs = their_losses.TripletLoss(torch.nn.Identity())
    rows = [2 * x for x in (*pairs(0), pairs(1)[1])]
    expected = theirs.compute_loss_from_embeddings([torch.tensor(x) for x in rows], None)
    found, _ = losses.of_triplets(*map(jnp.asarray, rows), margin=5.0, average="valid")
    assert float(found) == pytest.approx(expected.item(), rel=1e-5)


def test_given_negatives_are_those_of_all_anchors_as_theirs_are(torch, their_losses):
    theirs = their_losses.MultipleNegativesRankingLoss(torch.nn.Identity(), scale=20.0)
    anchors, positives, negatives = (*pairs(0), pairs(1)[1])
    columns = [torch.tensor(x) for x in (anchors, positives, negatives)]
    expected = theirs.compute_loss_from_embeddings(columns, None)
    ids, others = np.arange(2 * QUERIES), np.concatenate([positives, negatives])
    nce = functools.partial(contrastive.info_nce, temperature=0.05)
    settings = {"loss": nce, "references": jnp.asarray(others), "reference_labels": ids}
    run = jax.jit(functools.partial(contrastive.contrastive_loss, **settings))
    found, _ = run(jnp.asarray(anchors), ids[:QUERIES])
    assert float(found) == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("BatchAllTripletLoss", {"miner": "batch_all"}),
        ("BatchHardTripletLoss", {"miner": "batch_hard", "average": "valid"}),
    ],
)
def test_labelled_texts_are_mined_as_theirs_are(torch, their_losses, name, settings):
    theirs = getattr(their_losses, name)(torch.nn.Identity())
    rows, labels = pairs(0)[0], np.arange(QUERIES) % 4
    expected = theirs.compute_loss_from_embeddings([torch.tensor(rows)], torch.tensor(labels))
    run = jax.jit(functools.partial(losses.triplet_loss, margin=5.0, **settings))
    found, _ = run(jnp.asarray(rows), labels)
    assert float(found) == pytest.approx(expected.item(), rel=1e-5)
