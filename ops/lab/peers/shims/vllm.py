"""Pytest plugin for vLLM's `tests/entrypoints`: `RemoteOpenAIServer` starts Lorikeet.

Tests that use no server are left out: they test vLLM's Python code. So vLLM needn't be installed.
"""

import argparse
import base64
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

import anthropic
import openai
import orjson
import pytest
from transformers import AutoTokenizer

from ops.demo.model import demo_model
from ops.lab.peers.shims.server import SERVER, Served, neutral_adapter
from ops.lab.peers.shims.stubs import Stubs

C = TypeVar("C")
LARGEST_CONTEXT = 1024
"""Maximum context of a server in tokens. A test that asks for a longer one gets this one.

Some tests let the model write until its context is full.
"""
TIMEOUT_S = 100.0


class RemoteOpenAIServer:
    """Replacement of vLLM's test class of this name. It has the methods that the tests use."""

    DUMMY_API_KEY = "token-abc123"

    def __init__(
        self,
        model: str,
        vllm_serve_args: Sequence[str],
        *,
        env_dict: dict[str, str] | None = None,
        **ignored: Any,
    ) -> None:
        self.host = "127.0.0.1"
        self.model = _served(model, vllm_serve_args, env_dict or {})
        self.port = SERVER.port_of(self.model)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Do nothing, so that the next file of tests can use the same server."""

    @property
    def url_root(self) -> str:
        """Return the URL of the server."""
        return f"http://{self.host}:{self.port}"

    def url_for(self, *parts: str) -> str:
        """Return the URL of a path."""
        return "/".join([self.url_root, *(part.strip("/") for part in parts if part)])

    def get_client(self, **options: Any) -> openai.OpenAI:
        """Return a client of OpenAI's API."""
        return _with_model(openai.OpenAI, self.model.name)(**self._options("v1", options))

    def get_async_client(self, **options: Any) -> openai.AsyncOpenAI:
        """Return an asynchronous client of OpenAI's API."""
        return _with_model(openai.AsyncOpenAI, self.model.name)(**self._options("v1", options))

    def get_client_anthropic(self, **options: Any) -> anthropic.Anthropic:
        """Return a client of Anthropic's API."""
        return anthropic.Anthropic(**self._options("", options))

    def get_async_client_anthropic(self, **options: Any) -> anthropic.AsyncAnthropic:
        """Return an asynchronous client of Anthropic's API."""
        return anthropic.AsyncAnthropic(**self._options("", options))

    def _options(self, path: str, options: dict[str, Any]) -> dict[str, Any]:
        key, url = self.model.api_key or self.DUMMY_API_KEY, self.url_for(path)
        defaults = {"base_url": url, "api_key": key, "max_retries": 0, "timeout": TIMEOUT_S}
        return defaults | options


class _Hub:
    """Stand-in for the client of the Hugging Face hub."""

    def snapshot_download(self, repo_id: str, **options: Any) -> str:
        """Return the folder of an adapter that changes nothing."""
        return str(neutral_adapter(Path(tempfile.mkdtemp(prefix="lorikeet-adapter-"))))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests that use no server."""
    has_server = [any("server" in name for name in item.fixturenames) for item in items]  # type: ignore[attr-defined]
    left_out = [item for item, kept in zip(items, has_server, strict=True) if not kept]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item, kept in zip(items, has_server, strict=True) if kept]


def _served(model: str, words: Sequence[str], environment: dict[str, str]) -> Served:
    """Return the settings of a Lorikeet server that replaces `vllm serve` with these arguments."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    for name in ("max-model-len", "served-model-name", "chat-template", "root-path", "api-key"):
        parser.add_argument(f"--{name}", f"--{name.replace('-', '_')}")
    parser.add_argument("--lora-modules", nargs="+", default=[])
    given, _ = parser.parse_known_args(words)
    flags = ["--adapter-root", tempfile.gettempdir()]
    if given.lora_modules:
        flags += ["--adapters", *map(_adapter, given.lora_modules)]
    if given.root_path:
        flags += ["--root-path", given.root_path]
    return Served(
        name=given.served_model_name or model,
        max_model_len=min(int(given.max_model_len or LARGEST_CONTEXT), LARGEST_CONTEXT),
        api_key=given.api_key or environment.get("VLLM_API_KEY"),
        template=given.chat_template,
        flags=tuple(flags),
    )


def _adapter(module: str) -> str:
    """Return an item of --lora-modules as NAME=FOLDER. vLLM also takes it as JSON."""
    if not module.startswith("{"):
        return module
    fields = orjson.loads(module)
    return f"{fields['name']}={fields['path']}"


def _with_model(client: type[C], model: str) -> type[C]:
    """Return a subclass of `client` that adds the model's name to requests without one.

    Lorikeet needs the name.
    """

    class Naming(client):  # type: ignore[misc,valid-type]
        def _build_request(self, options: Any, **others: Any) -> Any:
            is_generation = options.method == "post" and "lora_adapter" not in options.url
            if is_generation and isinstance(options.json_data, dict):
                options.json_data.setdefault("model", model)
            return super()._build_request(options, **others)

    return Naming


sys.modules.setdefault("pybase64", base64)  # the same functions, faster
Stubs(
    names=("vllm", "tests.utils", "tests.conftest", "tests.models", "rapidfuzz"),
    known={
        "RemoteOpenAIServer": RemoteOpenAIServer,
        "ROCM_EXTRA_ARGS": [],
        "get_tokenizer": lambda *names, **options: AutoTokenizer.from_pretrained(demo_model()),
        "hf_api": _Hub,
    },
).install()
