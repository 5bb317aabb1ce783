"""What a run trains with, as its config describes it: its data, its model, its first state."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable

import flax.linen as nn
import jax
import ml_collections
import numpy as np

from experiments.config import augmentations, datasets, encoders, stepping
from experiments.run import config_json, data_json, embedding_metrics, pretrained, tracking
from experiments.run.backbone_features import BackboneFeatures
from triplet_jax import data, models
from triplet_jax.data import images
from triplet_jax.models import encoder_parts, inference, principal, standardise
from triplet_jax.runs import files
from triplet_jax.training import train_state


@dataclasses.dataclass(frozen=True, eq=False)
class Setup:
    """The parts of a run. Each is built once, when it is first asked for.

    Args:
      config: of the run.
      workdir: of the run.
      everything: all examples, from `datasets.dataset`.
      features: what the frozen backbone makes of each example, if the head alone is trained on
        that; None otherwise.
    """

    config: ml_collections.FrozenConfigDict
    workdir: pathlib.Path
    everything: data.Dataset
    features: np.ndarray | None = None

    def check(self) -> None:
        """Builds what may be refused, before anything is written.

        Raises:
          InputError: the data, the model or the augmentations do not go together, or the package of
            a tracker is not installed.
        """
        tracking.check(self.config)
        datasets.check_test(self.config, self.everything)
        datasets.check_patience(self.config, self.everything)
        for name in ("examples", "encoder", "augment"):
            getattr(self, name)

    @property
    def seen(self) -> data.Dataset:
        """All examples, as what is trained sees them: features, if there are any."""
        if self.features is None:
            return self.everything
        return dataclasses.replace(self.everything, inputs=self.features)

    @functools.cached_property
    def _training_split(self):
        return datasets.training_split(self.config, self.seen)

    @property
    def examples(self) -> data.Dataset:
        """What batches are drawn from, with the labels that training is given."""
        return self._training_split[0]

    @functools.cached_property
    def validation(self) -> data.Dataset:
        """The validation split."""
        return datasets.validation_split(self.config, self.seen)

    @functools.cached_property
    def encoder(self) -> nn.Module:
        """The model."""
        shapes = self.everything.input_shape, self.everything.pair_shapes
        return encoders.encoder(self.config, *shapes)

    @functools.cached_property
    def augment(self) -> Callable | None:
        """The random changes to an image, or None."""
        return augmentations.augmentation(self.config, self.everything.input_shape)

    @property
    def trained(self) -> encoder_parts.Applied:
        """The encoder, or its head if that is trained on features."""
        return self.encoder if self.features is None else encoder_parts.HeadOf(self.encoder)

    @functools.cached_property
    def embed(self) -> Callable:
        """`(variables, inputs) -> embeddings`, over all devices; of inputs as in `seen`."""
        return inference.make_embed(self.trained, batch=self.config.evaluate.batch)

    @functools.cached_property
    def judging(self) -> tuple[Callable, np.ndarray | images.Images]:
        """What embeds for the final scores, and its inputs: features, or images that it changes."""
        if not self.config.evaluate.augment:
            return self.embed, self.seen.inputs
        judged = encoders.judged(self.config, self.encoder)
        embed = inference.make_embed(judged, batch=self.config.evaluate.batch)
        return embed, self.everything.inputs

    @property
    def steps(self) -> dict[int, Callable]:
        """The step of one device, by the step of the run from which it is taken."""
        return stepping.steps(self.config, self.trained, self.augment)

    @functools.cached_property
    def weights(self) -> pretrained.Given:
        """The weights that a new run starts from, where they are not random; else `NOTHING`."""
        return pretrained.given(self.config, self.encoder, self.everything.input_shape)

    @functools.cached_property
    def backbone_features(self) -> BackboneFeatures:
        """The features of examples by the backbone, before it is trained."""
        return BackboneFeatures(self.config, self.encoder, self.everything)

    @property
    def given(self) -> dict:
        """What the encoder of a new run is given in place of random arrays."""
        measured = encoders.input_statistics(self.config, self.everything)
        given = standardise.put({"batch_stats": measured}, self.weights.variables)
        if self.config.model.head == "principal":
            features = self.backbone_features.of_split(given, "train")
            head = principal.head(features, self.config.model.dim)
            given = given | {"params": given["params"] | {models.HEAD: head}}
        return given

    def initial_state(self) -> train_state.TrainState:
        """The state before the first step."""
        shape = self.everything.input_shape
        return stepping.initial_state(self.config, self.encoder, shape, self.given)

    def state_shapes(self) -> train_state.TrainState:
        """The shapes and types of a state, which take no memory."""
        shape = self.everything.input_shape
        return jax.eval_shape(lambda: stepping.initial_state(self.config, self.encoder, shape))

    def validate(self, state: train_state.TrainState) -> dict[str, float]:
        """MAP@R and P@1 of the validation split; empty where it is empty, or can tell nothing.

        Of pairs both are Recall at 1 between the two arrays, the mean of both ways.
        """
        if not datasets.can_score(self.config, self.validation):
            return {}
        embeddings = self.embed(state.variables, self.validation.inputs)
        scores = embedding_metrics.retrieval(self.config, self.validation, embeddings)
        return {name: scores[name] for name in ("map_at_r", "precision_at_1")}

    def remember(self, content: dict) -> None:
        """Writes `config.json`, `data.json` and, of labels that are wrong on purpose, those.

        Args:
          content: what `data_json.content` says of the data, which many runs may share.

        Raises:
          InputError: the folder holds a run of another config, on other data, or by other scores.
        """
        config_json.remember(self.workdir, self.config)
        data_json.remember(self.workdir, content | data_json.of_files(self.config))
        wrong = self._training_split[1]
        if not wrong.any():
            return
        train = self.everything.only("train")
        files.write_arrays(
            self.workdir / "label_noise.npz",
            positions=np.flatnonzero(self.everything.split == "train"),
            true=train.labels,
            given=datasets.given_labels(self.config, train),
            wrong=wrong,
        )
