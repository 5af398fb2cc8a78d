"""The probes, whole, on a tiny model: their figures mean nothing, but they run."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny
import torch

from ops.bench.adapters import make_adapters
from ops.bench.gpu import peft_on
from ops.bench.load import send_load
from ops.bench.probes.interference import disturb, interference_finding, streams_of
from ops.bench.probes.memory import measure_memory, memory_finding
from ops.bench.probes.prefix import prefix_finding, shared_prefix
from ops.bench.probes.steps import measure_contexts, measure_lora, measure_steps
from ops.bench.processes import Serving
from ops.bench.servers import lorikeet

pytestmark = pytest.mark.timeout(300)  # they start processes that import torch


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # 128 words are some 600 tokens of the byte-level tokenizer.
    return tiny.save_tiny_model(tmp_path_factory.mktemp("tiny"), max_position_embeddings=4096)


@pytest.fixture(scope="module")
def adapters(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapters")
    make_adapters(model, folder)
    return folder


@pytest.fixture(scope="module")
def serving(
    model: Path, adapters: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Serving]:
    named = {folder.name: folder for folder in adapters.iterdir()}
    with lorikeet(model, named, tmp_path_factory.mktemp("scratch")) as serving:
        yield serving


def test_steps_are_measured_beside_the_floor(model: Path, adapters: Path) -> None:
    finding = measure_steps(model, adapters, [1, 3])
    assert [step.batch for step in finding.figures["steps"]] == [1, 3]
    assert all(step.base_ms > 0 for step in finding.figures["steps"])
    assert [floor.batch for floor in finding.figures["floor"]] == [1, 3]


def test_the_bytes_of_lora_are_those_of_the_adapters_that_take_part(
    model: Path, adapters: Path
) -> None:
    one, two = measure_lora(model, adapters, [1, 2]).figures["steps"]
    assert two.lora_bytes == 3 * one.lora_bytes  # ranks 8 and 16


def test_contexts_are_measured_with_the_bytes_of_their_keys_and_values(model: Path) -> None:
    short, long = measure_contexts(model, [100, 200]).figures["contexts"]
    assert long.kv_bytes == 2 * short.kv_bytes
    assert short.step_ms > 0
    assert short.prefill_ms_per_token > 0


def test_peft_is_measured_beside_a_gpu_on_its_device(model: Path, adapters: Path) -> None:
    assert peft_on(model, torch.device("cpu"))(adapters, 2, 3) > 0


def test_a_long_prompt_arrives_among_running_streams(serving: Serving) -> None:
    streams = streams_of(serving.url, ["a0", "a1"], 4, "seed")
    found = asyncio.run(disturb(streams, prompt_words=300))
    assert found.ttft_s > 0
    assert found.before_s
    assert found.during_s
    assert "x their median" in interference_finding([found]).says[0]


def test_a_shared_prefix_is_sent_and_timed(serving: Serving) -> None:
    answers = asyncio.run(send_load(shared_prefix(serving.url, "a0", 6, 20)))
    assert [answer.error for answer in answers] == [None] * 6
    assert prefix_finding(answers, answers, 20).figures["cached_s"].p50 > 0


def test_memory_of_every_process_is_looked_at(serving: Serving) -> None:
    samples = measure_memory(serving.url, ["a0", "a1"], serving.pids, requests=20)
    assert [sample.answered for sample in samples] == list(range(0, 22, 2))
    assert set(memory_finding(samples).chart.series) == {"worker", "api", "redis"}
