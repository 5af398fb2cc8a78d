"""Pytest plugin for llama.cpp's `tools/server/tests`: its server class starts Lorikeet."""

import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ops.lab.peers.shims.server import SERVER, Served

BASE = "tinyllama-2"
NAMES = (
    *("gpt-3.5-turbo", "gpt-3.5-turbo-instruct", "gpt-4.1", "davinci-002", "codellama70b"),
    *("text-embedding-3-small", "test", "llama-test-model", "tinyllama-2-tool-call"),
    *("tinyllama-2-anthropic", "bert-bge-small", "jina-reranker", "tinygemma3"),
)
"""Model names that the tests send, or give to their servers.

Lorikeet serves all of them, because llama.cpp ignores the model's name in requests.
"""
SMALL_CONTEXT, LARGE_CONTEXT = 256, 1024
"""Context of a small server in tokens, and the smallest context that needs a large server.

A large server has the model's full context. There are only these two sizes, because servers take
long to start.
"""

sys.modules.setdefault("wget", ModuleType("wget"))  # it only downloads models


def pytest_configure() -> None:
    """Replace the methods of `utils.ServerProcess` that start, stop and ask a server."""
    import utils  # type: ignore[import-not-found]

    utils.ServerPreset.load_all = staticmethod(lambda: None)
    process = utils.ServerProcess
    process.start, process.stop = _start, _stop
    process.make_request = _with_model(process.make_request)
    process.make_stream_request = _with_model(process.make_stream_request)


def _start(process: Any, timeout_seconds: float = 0) -> None:
    if process.cors_origins:
        pytest.fail(f"Lorikeet has no --cors-origins {process.cors_origins}")
    context = (process.n_ctx or 0) // (process.n_slots or 1)
    process.server_port = SERVER.port_of(
        Served(
            name=BASE,
            further_names=NAMES,
            max_model_len=SMALL_CONTEXT if 0 < context < LARGE_CONTEXT else None,
            api_key=process.api_key,
            template=_template(process),
            flags=("--cors-origins", "*"),
        )
    )


def _stop(process: Any) -> None:
    """Do nothing, so that the next test can use the same server."""


def _template(process: Any) -> str | None:
    """Return the text of the chat template that a test asks for.

    Return None if it asks for none, or for one of llama.cpp's own templates by name.
    """
    if process.chat_template_file:
        return Path(process.chat_template_file).read_text()
    text = process.chat_template
    return text if text and not text.isidentifier() else None


def _name(process: Any) -> str:
    return process.model_alias if process.model_alias in NAMES else BASE


def _with_model(send: Callable[..., Any]) -> Callable[..., Any]:
    """Return a version of `send` that adds the model's name to requests without one.

    Lorikeet needs the name, because it serves several models.
    """

    @wraps(send)
    def ask(process: Any, method: str, path: str, data: Any = None, *args: Any, **kw: Any) -> Any:
        if method == "POST" and isinstance(data, dict) and data.get("model") is None:
            data = {**data, "model": _name(process)}
        return send(process, method, path, data, *args, **kw)

    return ask
