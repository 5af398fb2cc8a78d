"""Pytest plugin for LMDeploy's `autotest/interface/restful`: the tests use Lorikeet's port.

The tests need only LMDeploy's client, so LMDeploy needn't be installed.
"""

import os
import sys

import pytest

from ops.lab.peers.shims.server import SERVER, Served
from ops.lab.peers.shims.stubs import Stubs

CONTEXT = 1024
"""Context of the server in tokens. Many tests let the model write until its context is full."""
LISTS = ("BACKEND_LIST", "RESTFUL_MODEL_LIST", "RESTFUL_BASE_MODEL_LIST")
"""Names of LMDeploy's lists of backends and models. It repeats each test for all their items."""


def pytest_configure(config: pytest.Config) -> None:
    """Start the server, and make the lists in `LISTS` so short that each test runs once."""
    sys.path.insert(0, str(config.rootpath.parent))  # the client's module
    sys.path.insert(0, str(config.rootpath))
    served = Served(name="lorikeet", max_model_len=CONTEXT)
    os.environ["LMDEPLOY_PORT"] = str(SERVER.port_of(served))
    from utils import constant  # type: ignore[import-not-found]

    for name in LISTS:
        setattr(constant, name, ["lorikeet"])


Stubs(
    names=("lmdeploy.utils", "lmdeploy.serve.processors", "lmdeploy.serve.parsers"), known={}
).install()
