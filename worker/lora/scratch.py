"""Memory that a load needs for a while."""

import mmap

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]


def scratch(num_bytes: int) -> Bytes:
    """So many zeros, which the system has back as soon as they are given up.

    What malloc keeps for later would come on top of the budgets of the tiers.
    """
    return np.frombuffer(mmap.mmap(-1, max(num_bytes, 1)), np.uint8)[:num_bytes]
