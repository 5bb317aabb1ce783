"""Files of jax.export that jax cannot read."""

import pytest

from triplet_jax import errors
from triplet_jax.models import export


@pytest.mark.parametrize("content", [b"", bytes(100), b"this is no encoder" * 9])
def test_a_file_that_jax_does_not_read_is_refused_with_the_way_out(content, tmp_path):
    file = tmp_path / "old.jaxexport"
    file.write_bytes(content)
    with pytest.raises(errors.InputError, match="up to six months newer.*Export the encoder again"):
        export.load(file)
