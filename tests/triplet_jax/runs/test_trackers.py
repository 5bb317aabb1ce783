"""What TensorBoard is given."""

from triplet_jax.runs import trackers


def test_tensorboard_gets_the_rows(tmp_path):
    writer = trackers.TensorBoard(tmp_path, last_step=0)
    writer.write({"step": 1, "loss": 0.5})
    writer.close()
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) > 50
