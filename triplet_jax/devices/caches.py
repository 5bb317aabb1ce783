"""The caches of this machine's processor, which sizes of tiles follow."""

import os

# The size on many processors, taken where the system does not tell it.
_USUAL = 2**20


def second_level() -> int:
    """The bytes of the second-level cache of a core."""
    try:
        found = os.sysconf("SC_LEVEL2_CACHE_SIZE")
    except (ValueError, OSError):  # neither macOS nor musl know the name
        return _USUAL
    # A virtual machine may give 0, or the sum over all cores.
    return found if 2**17 <= found <= 2**25 else _USUAL
