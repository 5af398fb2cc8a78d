"""Pytest plugin for SGLang's server tests: `popen_launch_server` starts Lorikeet.

Only the test kits are SGLang's own code. Everything else that the tests import is replaced, so
SGLang needn't be installed.
"""

import argparse
import sys
import unittest
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import AutoTokenizer

from ops.demo.model import demo_model
from ops.lab.peers.shims.server import SERVER, Served
from ops.lab.peers.shims.stubs import Stubs
from ops.local.ports import free_port

CONTEXT = 2048
"""Maximum context of a server in tokens, unless a test asks for a shorter one."""
RERANKED = {"query": "What is a panda?", "documents": ["hi", "It is a bear."]}
SHORTEST_KEY = 16
"""Length of the shortest key that Lorikeet takes. With a shorter one, the server has no keys."""
STUBS = (
    *("sglang.srt", "sglang.benchmark", "sglang.test.ci", "sglang.test.runners"),
    *("sglang.test.test_utils", "sglang.test.run_eval", "sglang.test.send_one"),
    *("sglang.test.kl_test_utils", "sglang.test.kl_multiturn_utils", "tabulate"),
)
PORT = free_port()
"""Port of all servers: the tests read their address before a server starts."""
MODELS = {
    "DEFAULT_MODEL_NAME_FOR_TEST": "meta-llama/Llama-3.1-8B-Instruct",
    "DEFAULT_SMALL_MODEL_NAME_FOR_TEST": "meta-llama/Llama-3.2-1B-Instruct",
    "DEFAULT_SMALL_EMBEDDING_MODEL_NAME_FOR_TEST": "Alibaba-NLP/gte-Qwen2-1.5B-instruct",
    "DEFAULT_SMALL_CROSS_ENCODER_MODEL_NAME_FOR_TEST": "cross-encoder/ms-marco-MiniLM-L6-v2",
    "DEFAULT_SMALL_MODEL_NAME_FOR_TEST_SCORE": "Qwen/Qwen3-Reranker-0.6B",
}
"""Names of models by SGLang's names for them."""


class ServerTestCase(unittest.TestCase):
    """Replacement of SGLang's base class of tests, which also repeats them."""


def popen_launch_server(
    model: str,
    base_url: str,
    timeout: float = 0.0,
    api_key: str | None = None,
    other_args: Sequence[object] = (),
    **ignored: Any,
) -> SimpleNamespace:
    """Start a Lorikeet server for `model`, and return a stand-in for its process."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--context-length", type=int, default=CONTEXT)
    parser.add_argument("--lora-paths", nargs="+", default=[])
    given, _ = parser.parse_known_args([str(word) for word in other_args or ()])
    names = [module.partition("=")[0] for module in given.lora_paths]
    SERVER.port_of(
        Served(
            name=model,
            further_names=tuple(names),
            max_model_len=min(given.context_length, CONTEXT),
            api_key=api_key if len(api_key or "") >= SHORTEST_KEY else None,
            port=PORT,
        )
    )
    return SimpleNamespace(pid=0, poll=lambda: None)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests that use no server: their classes don't start one."""
    kept = [item for item in items if "setUpClass" in _names_of_class(item)]
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = kept


def _names_of_class(item: pytest.Item) -> set[str]:
    owner = getattr(item, "cls", None)
    classes = owner.__mro__ if owner else ()
    return {name for each in classes if each is not unittest.TestCase for name in vars(each)}


sys.path.insert(0, str(Path.cwd() / "python"))
Stubs(
    names=STUBS,
    known={
        **MODELS,
        "TEST_RERANK_QUERY_DOCS": [RERANKED, RERANKED],
        "CustomTestCase": ServerTestCase,
        "DEFAULT_TIMEOUT_FOR_SERVER_LAUNCH": 600,
        "DEFAULT_URL_FOR_TEST": f"http://127.0.0.1:{PORT}",
        "get_tokenizer": lambda *names, **options: AutoTokenizer.from_pretrained(demo_model()),
        "is_in_ci": lambda: True,
        "is_rust_server_built": lambda: False,
        "popen_launch_server": popen_launch_server,
    },
).install()
