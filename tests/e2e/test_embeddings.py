"""Embeddings of a running server equal those of transformers + PEFT."""

import asyncio
import base64
from collections.abc import Sequence
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import torch
from served_tiny import BASE, NAMES, TinyModels

TEXTS = ["one", "a second, longer input with many bytes", "3"]
MAX_ERROR = 1e-5


@torch.inference_mode()
def hidden(models: TinyModels, name: str, ids: Sequence[int]) -> torch.Tensor:
    """Return the reference's last hidden states, `[T, H]`."""
    model = models.references[name]
    decoder = getattr(model, "get_base_model", lambda: model)().base_model
    states: torch.Tensor = decoder(input_ids=torch.tensor([list(ids)])).last_hidden_state[0]
    return states


def check(vectors: Sequence[Any], expected: Sequence[torch.Tensor]) -> None:
    assert len(vectors) == len(expected)
    for vector, reference in zip(vectors, expected, strict=True):
        assert np.abs(np.asarray(vector) - reference.numpy()).max() < MAX_ERROR


@pytest.mark.parametrize("encoding", ["float", "base64"])
async def test_each_model_embeds_all_inputs_while_others_generate(
    client: openai.AsyncOpenAI, models: TinyModels, encoding: Any
) -> None:
    async def embed(name: str) -> None:
        answer = await client.embeddings.create(model=name, input=TEXTS, encoding_format=encoding)
        ids = [models.text_ids(text) for text in TEXTS]
        last = [torch.nn.functional.normalize(hidden(models, name, i)[-1], dim=0) for i in ids]
        vectors: list[Any] = [item.embedding for item in answer.data]
        if encoding == "base64":
            vectors = [np.frombuffer(base64.b64decode(v), "<f4") for v in vectors]
        check(vectors, last)
        assert [item.index for item in answer.data] == [0, 1, 2]
        assert answer.usage.prompt_tokens == answer.usage.total_tokens == sum(map(len, ids))

    async def generate(name: str) -> str:
        answer = await client.completions.create(
            model=name, prompt="x", max_tokens=16, temperature=0, extra_body={"ignore_eos": True}
        )
        return answer.choices[0].text

    alone = [await generate(name) for name in NAMES]
    async with asyncio.TaskGroup() as group:
        generating = [group.create_task(generate(name)) for name in NAMES]
        for name in NAMES:
            group.create_task(embed(name))
    assert [task.result() for task in generating] == alone


async def test_a_background_job_keeps_the_embeddings(
    client: openai.AsyncOpenAI, http: httpx.AsyncClient
) -> None:
    expected = await client.embeddings.create(model=BASE, input=TEXTS, encoding_format="base64")
    body = {"model": BASE, "input": TEXTS, "encoding_format": "base64", "background": True}
    started = await http.post("/v1/embeddings", json=body)
    assert started.status_code == 202
    url = f"/v1/jobs/{started.json()['id']}"
    async with asyncio.timeout(60):
        while (job := (await http.get(url)).json())["state"] != "done":
            assert job["state"] in ("queued", "running")
    assert [item["embedding"] for item in job["data"]] == [i.embedding for i in expected.data]
    assert job["choices"] is None
    stream = await http.get(f"{url}/stream")
    assert stream.status_code == 400
    assert "aren't streamed" in stream.json()["error"]["message"]
