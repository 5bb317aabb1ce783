"""Draws the test split of a run as raw inputs and as embeddings, side by side.

python -m experiments.picture --workdir=runs/digits --output=digits.png
"""

import pathlib

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt

from experiments import command
from experiments.config import settings
from experiments.run import config_json, data_json, raw_inputs
from triplet_jax import errors
from triplet_jax.analysis import plots, projection
from triplet_jax.runs import files


def main() -> None:
    workdir = pathlib.Path(command.required(command.WORKDIR, "the folder of a trained run"))
    output = command.file_to_write(command.OUTPUT, ".png")
    config = config_json.read(workdir)
    result_file, embeddings_file = workdir / "result.json", workdir / "embeddings.npz"
    if not (result_file.exists() and embeddings_file.exists()):
        raise errors.InputError(
            f"--workdir={workdir} holds no evaluation. Make one:"
            f" python -m experiments.evaluate --workdir={workdir}"
        )
    result = files.read_json(result_file)
    if "raw_pixels" not in result:
        raise errors.InputError(
            f"--workdir={workdir} holds a run on pairs, whose raw inputs cannot be compared: the"
            " picture shows them beside the embedding."
        )
    everything = data_json.open_data(workdir, config, command.DATA.value)
    embedded = data_json.embeddings(workdir, everything)[everything.split == "test"]
    test = everything.only("test")
    figure, axes = plt.subplots(1, 2, figsize=(9, 4.5), layout="constrained")
    sides = (
        ("raw pixels", "raw_pixels", raw_inputs.raw_inputs(test)),
        (f"embedding, {settings.rule(config)}", "embedding", embedded),
    )
    for side, (title, key, vectors) in zip(axes, sides, strict=True):
        plots.embedding_map(side, projection.tsne(vectors), test.labels, test.class_names)
        score = result[key]["retrieval"]["map_at_r"]
        side.set_title(title if score is None else f"{title}: MAP@R {score:.3f}")
    plots.write(figure, output)
    print(f"written to {output}")


if __name__ == "__main__":
    command.run(main, takes=(command.DATA, command.OUTPUT))
