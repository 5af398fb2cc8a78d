"""The kernels of tests that run with several sets of them."""

import pytest
from kernel_sets import kernels_of

from worker.kernels.interface import Kernels


@pytest.fixture(scope="module")
def kernels(request: pytest.FixtureRequest) -> Kernels:
    """Kernels of the test's set, a name and a dtype."""
    name, dtype = request.param
    return kernels_of(name, dtype)
