"""An embedding of handwritten digits, trained by `fit` of Keras 3 on jax."""

import functools
import os
import sys

os.environ["KERAS_BACKEND"] = "jax"  # before keras is imported

import keras
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from triplet_jax import evaluation, losses, mining, schedules

STEPS = int(sys.argv[1]) if len(sys.argv) > 1 else 300
# The curriculum: first each anchor's median negative, in the end its nearest.
HARDNESS = schedules.between(schedules.cosine(total_steps=STEPS), start=0.5, end=1.0)


class Encoder(keras.Sequential):
    def __init__(self, layers):
        super().__init__(layers)
        # fit compiles the loss once: only a variable of the model can move in it.
        self.step = self.add_weight(dtype="int32", initializer="zeros", trainable=False)

    def compute_loss(self, x, y, y_pred, sample_weight=None, training=True):
        miner = functools.partial(mining.quantile, hardness=HARDNESS(self.step.value))
        if training:
            self.step.assign_add(1)
        return losses.triplet_loss(y_pred, y, miner=miner)[0]


def batches(images, labels):
    random = np.random.default_rng(0)
    while True:
        rows = random.choice(len(images), 128, replace=False)
        yield images[rows], labels[rows]


images, labels = load_digits(return_X_y=True)
images, unseen, labels, unseen_labels = train_test_split(images / 16, labels, random_state=0)
keras.utils.set_random_seed(0)
hidden = keras.layers.Dense(256, activation="relu")
output = keras.layers.Dense(64)
encoder = Encoder([keras.Input((64,)), hidden, output, keras.layers.UnitNormalization()])
before = evaluation.retrieval(encoder.predict(unseen, verbose=0), unseen_labels)

encoder.compile(optimizer=keras.optimizers.Adam(1e-3))
settings = {"epochs": 3, "steps_per_epoch": STEPS // 3, "shuffle": False, "verbose": 2}
encoder.fit(batches(images, labels), **settings)

after = evaluation.retrieval(encoder.predict(unseen, verbose=0), unseen_labels)
print(f"MAP@R {before['map_at_r']:.3f} before, {after['map_at_r']:.3f} after")
