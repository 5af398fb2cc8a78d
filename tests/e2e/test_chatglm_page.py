"""The command of LMDeploy's page "Serving LoRA", with its own names, from the hub's cache alone.

https://lmdeploy.readthedocs.io/en/latest/advance/pytorch_lora.html is the page. The cache has tiny
repositories in the form of THUDM/chatglm2-6b and chenchi/lora-chatglm2-6b-guodegang.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest
from chatglm import Reference, save_chatglm, save_pickled_adapter
from reference import with_adapter
from servers import Server, lorikeet_up, run_lorikeet

BASE, ADAPTER = "THUDM/chatglm2-6b", "chenchi/lora-chatglm2-6b-guodegang"
COMMIT = "0" * 40
HEADERS = {"accept": "application/json", "Content-Type": "application/json"}
HI = [{"content": "hi", "role": "user"}]
pytestmark = pytest.mark.slow
BUDGETS = ("--dtype", "float32", "--kv-cache-mb", "64", "--adapter-memory-mb", "64")


def repository(cache: Path, name: str) -> Path:
    """Return a folder in the cache whose files the hub's client takes for those of `name`."""
    home = cache / f"models--{name.replace('/', '--')}"
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text(COMMIT)
    return home / "snapshots" / COMMIT


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    cache = tmp_path_factory.mktemp("hub")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_CACHE", str(cache))
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield cache


@pytest.fixture(scope="module")
def adapted(cache: Path) -> Reference:
    """Fill the cache, and return the base with its adapter."""
    tensors = save_chatglm(repository(cache, BASE), pickled=True)
    adapter = save_pickled_adapter(repository(cache, ADAPTER), tensors, ["query_key_value"])
    model = Reference("chatglm2", tensors)
    with_adapter(model, adapter)  # changes it in place
    return model


@pytest.fixture(scope="module")
def server(adapted: Reference, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    words = BASE, "--adapters", f"mylora={ADAPTER}"
    with lorikeet_up(tmp_path_factory.mktemp("server"), *words, *BUDGETS) as server:
        yield server


def test_the_pages_curl_command_gets_the_adapters_answer_to_17_tokens(
    server: Server, adapted: Reference
) -> None:
    names = {card["id"] for card in httpx.get(f"{server.api_url}/models").json()["data"]}
    assert names == {BASE, "mylora"}
    body = {"model": "mylora", "messages": HI, "temperature": 0, "max_tokens": 8}
    content = json.dumps({**body, "return_token_ids": True})
    url = f"{server.api_url}/chat/completions"
    output = httpx.post(url, content=content, headers=HEADERS, timeout=60).json()
    assert output["model"] == "mylora"
    assert output["choices"][0]["token_ids"] == adapted.greedy(output["prompt_token_ids"], 8)
    usage = {"prompt_tokens": 17, "completion_tokens": 8, "total_tokens": 25}
    assert usage.items() <= output["usage"].items()


def test_the_pages_python_example_gets_an_answer_of_each_model(server: Server) -> None:
    client = openai.OpenAI(api_key="YOUR_API_KEY", base_url=server.api_url, max_retries=0)
    for name in ("mylora", BASE):
        response = client.chat.completions.create(
            model=name, messages=[{"role": "user", "content": "hi"}], temperature=0.8, top_p=0.8
        )
        assert (response.model, response.usage.prompt_tokens) == (name, 17)


@pytest.mark.parametrize(
    ("base", "adapter"), [("THUDM/missing", ADAPTER), (BASE, "chenchi/missing")]
)
def test_a_repository_that_only_the_hub_has_is_named_and_why_it_is_not_read(
    adapted: Reference, base: str, adapter: str
) -> None:
    done = run_lorikeet("up", base, "--adapters", f"mylora={adapter}")
    missing = base if base.endswith("missing") else adapter
    assert done.returncode == 2
    output = done.stdout + done.stderr
    assert missing in output
    assert "the Hugging Face hub's cache on this machine doesn't have it" in output
    assert "HF_HUB_OFFLINE" in output
