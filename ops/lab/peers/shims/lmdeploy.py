"""Pytest plugin for LMDeploy's `autotest/interface/restful`: the tests use Lorikeet's port.

The tests need only LMDeploy's client, so LMDeploy needn't be installed.
"""

import os
import sys
from pathlib import Path

from ops.lab.peers.shims.server import SERVER, Served
from ops.lab.peers.shims.stubs import Stubs

MODEL = "lorikeet"
CONTEXT = 1024
"""Context of the server in tokens. Many tests let the model write until its context is full."""
LISTS = ("BACKEND_LIST", "RESTFUL_MODEL_LIST", "RESTFUL_BASE_MODEL_LIST")
"""Names of LMDeploy's lists of backends and models. Each test is repeated for all their items."""


def pytest_configure() -> None:
    """Make the lists in `LISTS` so short that each test runs once."""
    from utils import constant  # type: ignore[import-not-found]

    for name in LISTS:
        setattr(constant, name, [MODEL])


def _install() -> None:
    """Start the server, and prepare the imports of LMDeploy's conftest.py.

    pytest imports that file before it calls `pytest_configure`.
    """
    sys.path[:0] = [str(Path.cwd()), str(Path.cwd() / "autotest")]
    os.environ["LMDEPLOY_PORT"] = str(SERVER.port_of(Served(name=MODEL, max_model_len=CONTEXT)))
    names = ("lmdeploy.utils", "lmdeploy.serve.processors", "lmdeploy.serve.parsers")
    Stubs(names=names, known={}).install()


_install()
