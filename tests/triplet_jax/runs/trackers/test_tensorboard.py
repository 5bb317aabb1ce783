"""What TensorBoard is given."""

import PIL.Image

from triplet_jax.runs.trackers import interface
from triplet_jax.runs.trackers.tensorboard import TensorBoard


def test_tensorboard_gets_the_config_the_rows_and_pictures(tmp_path):
    PIL.Image.new("L", (4, 4)).save(tmp_path / "figure.png")
    writer = TensorBoard(interface.Place(tmp_path, "one"))
    writer.config({"loss.margin": 0.2, "log.trackers": ("tensorboard",)})
    writer.write({"step": 1, "loss": 0.5})
    writer.file(tmp_path / "figure.png")
    writer.file(tmp_path / "result.json")
    writer.end("finished")
    (events,) = (tmp_path / "tensorboard").iterdir()
    written = events.read_bytes()
    assert all(word in written for word in (b"loss.margin: 0.2", b"loss", b"figure.png", b"PNG"))


def test_tensorboard_leaves_nothing_where_it_is_shown_nothing(tmp_path):
    writer = TensorBoard(interface.Place(tmp_path, "report"))
    writer.file(tmp_path / "report.html")
    writer.end("finished")
    assert not list(tmp_path.iterdir())
