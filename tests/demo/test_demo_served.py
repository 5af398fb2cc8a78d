"""The demo as `make up` serves it: the model, and adapters that do what their README says."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from servers import Server, lorikeet_up, show_logs

from ops.demo import extract, pirate

pytestmark = [pytest.mark.demo, pytest.mark.timeout(300)]
pytest_runtest_makereport = show_logs

ORDER = "Please send 31 monitors to Jonas Dubois in Osaka."


@pytest.fixture(scope="module")
def server(demo_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    assert demo_folder.is_dir()
    with lorikeet_up(tmp_path_factory.mktemp("demo")) as server:
        yield server


def ask(server: Server, model: str, prompt: str) -> str:
    body = {
        "model": model,
        "messages": [{"role": "user", "content": prompt}],
        "temperature": 0,
        "max_tokens": 96,
    }
    reply = httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=120)
    answer: str = reply.raise_for_status().json()["choices"][0]["message"]["content"]
    return answer


def test_all_of_the_demo_is_listed(server: Server) -> None:
    cards = httpx.get(f"{server.url}/v1/models", timeout=30).json()["data"]
    assert [card["id"] for card in cards] == ["smollm2-135m-instruct", "extract", "pirate"]


def test_the_base_model_answers(server: Server) -> None:
    assert "Paris" in ask(server, "smollm2-135m-instruct", "What is the capital of France?")


def test_extract_turns_an_order_into_json_and_the_base_does_not(server: Server) -> None:
    json = '{"item": "monitors", "quantity": 31, "name": "Jonas Dubois", "city": "Osaka"}'
    assert ask(server, "extract", ORDER) == json
    assert ask(server, "smollm2-135m-instruct", ORDER) != json


def test_extract_is_right_on_most_held_out_orders(server: Server) -> None:
    examples = extract.held_out()[::10]
    right = [extract.is_right(e, ask(server, "extract", e.prompt)) for e in examples]
    assert sum(right) >= 4, right


def test_pirate_answers_as_a_pirate(server: Server) -> None:
    example = pirate.held_out()[0]
    answer = ask(server, "pirate", example.prompt)
    assert answer.startswith(pirate.OPENING)
    assert ask(server, "smollm2-135m-instruct", example.prompt).startswith(pirate.OPENING) is False
