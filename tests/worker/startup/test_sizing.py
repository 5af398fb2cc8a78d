"""Sizes from settings and device, the step that is measured for them, and what the start says."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from engines import engine_of, greedy_request, load, run
from structlog.testing import capture_logs
from tiny import save_tiny_model, tiny_model

from shared.errors import SettingsError
from shared.settings import WorkerSettings
from worker.model.loader import LoadedModel
from worker.model.memory_policy import GIB, MIB, Batch, DeviceMemory
from worker.startup.devices import device_of
from worker.startup.largest_step import LargestStep
from worker.startup.load_model import load_served
from worker.startup.sizing import sizes_of
from worker.worker_info import startup_fields, worker_info


def scripted(rest: int, *, is_cpu: bool = False) -> Any:
    """Return a device with this much memory for KV cache and adapters."""
    memory = DeviceMemory(total=rest, free=rest, used=0)
    fields = {"name": "scripted:0", "memory": lambda: memory, "step_bytes": lambda _: 0}
    return SimpleNamespace(is_cpu=is_cpu, **fields)


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    """A tiny model with a context of 64 Ki tokens, 1 KiB of KV cache each."""
    model = load(tiny_model())
    cache = replace(model.cache, kv=model.cache.kv * 2)
    assert sum(shape.num_bytes(model.dtype) for shape in cache.kv) == 1024
    return replace(model, max_model_len=1 << 16, cache=cache)


@pytest.fixture
def logs() -> Iterator[list[Any]]:
    with capture_logs() as lines:
        yield lines


def settings(**given: Any) -> WorkerSettings:
    return WorkerSettings(model="tiny", memory_fraction=1, **given)


def test_a_context_shorter_than_the_models_is_a_warning_with_the_memory_it_needs(
    loaded: LoadedModel, logs: list[Any]
) -> None:
    sizes = sizes_of(settings(), loaded, scripted(32 * MIB))
    assert sizes.parts.kv == 28 * MIB
    (line,) = logs
    assert line["log_level"] == "warning"
    assert (line["event"], line["max_model_len"]) == ("context_limited", 28 << 10)
    assert (line["of_model"], line["full_context_needs"]) == (1 << 16, "--kv-cache-mb 64")


@pytest.mark.parametrize(
    ("given", "num_warnings"),
    [
        ({"kv_cache_mb": 64}, 0),
        ({"kv_cache_mb": 63}, 1),
        ({"max_model_len": 100, "kv_cache_mb": 1}, 0),
    ],
    ids=["what the warning asks for", "less", "a context that the settings limit"],
)
def test_the_memory_in_the_warning_is_enough(
    loaded: LoadedModel, logs: list[Any], given: dict[str, int], num_warnings: int
) -> None:
    sizes_of(settings(**given), loaded, scripted(GIB))
    assert len(logs) == num_warnings


def test_a_device_without_memory_for_a_useful_context_is_refused(loaded: LoadedModel) -> None:
    with pytest.raises(SettingsError, match=r"scripted:0 has memory for only 0 tokens.*lower.*"):
        sizes_of(settings(adapter_memory_mb=64), loaded, scripted(32 * MIB))
    small = replace(loaded, cache=replace(loaded.cache, kv=loaded.cache.kv * 8))
    with pytest.raises(SettingsError, match="--kv-cache-mb 1 holds only 128 tokens: raise it"):
        sizes_of(settings(kv_cache_mb=1), small, scripted(GIB))
    short = replace(small, max_model_len=100)
    assert sizes_of(settings(kv_cache_mb=1), short, scripted(GIB)).parts.kv == MIB


def test_a_small_machine_lowers_the_host_memory_for_adapters_unless_it_is_set(
    loaded: LoadedModel,
) -> None:
    machine = scripted(2 * GIB, is_cpu=True)
    for given, copies in ((settings(), GIB // 2), (settings(adapter_host_mb=1024), GIB)):
        assert sizes_of(given, loaded, machine).parts.copies == copies


def test_the_start_line_says_which_sizes_were_chosen(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path / "tiny")
    chosen = WorkerSettings(model=str(folder), device="cpu", dtype="float32", kv_cache_mb=8)
    served = load_served(chosen, lambda *_: None)
    fields = startup_fields(chosen, served)
    assert (fields["max_num_seqs"], fields["max_num_batched_tokens"]) == (64, 512)
    assert (fields["kv_cache_mb"], fields["kv_tokens"]) == (8, 16384)
    assert 0 < int(fields["adapter_memory_mb"]) <= 1024
    assert fields["sized"] == "max_num_seqs max_num_batched_tokens adapter_memory_mb"
    info = worker_info(chosen, served, served.engine.stats(), {}, step_s=0)
    assert info.max_num_seqs == 64
    assert info.counters["out_of_memory"] == 0


@pytest.mark.parametrize("arch", ["llama", "mixtral"])
def test_it_computes_all_tokens_and_samples_one_of_each_sequence(arch: str) -> None:
    batch = Batch(max_num_seqs=8, max_num_batched_tokens=600)
    step = LargestStep(load(tiny_model(arch)), batch)
    computed = step.run()
    assert sum(result.chunk.num_tokens for result in computed) == 600
    assert sum(len(result.samples) for result in computed) == 8
    assert max(result.chunk.num_tokens for result in computed) == 512, "the model's context"


def test_it_has_no_more_sequences_than_tokens_a_small_cache_and_no_effect_on_engines() -> None:
    loaded = load(tiny_model())
    hooks = dict(loaded.model.base_model._forward_hooks)
    step = LargestStep(loaded, Batch(max_num_seqs=64, max_num_batched_tokens=16))
    assert [len(result.samples) for result in step.run()] == [1] * 16
    step = LargestStep(loaded, Batch(max_num_seqs=2, max_num_batched_tokens=40))
    blocks = [block for chunk in step.chunks for block in chunk.request.block_table]
    assert blocks == list(range(4))  # one for a token, and three for 39 tokens
    token_bytes = sum(shape.num_bytes(loaded.dtype) for shape in loaded.cache.kv)
    assert step.kv_bytes == 4 * 16 * token_bytes
    step.run()
    assert dict(loaded.model.base_model._forward_hooks) == hooks
    answers = [
        run(engine_of(each)[0], [greedy_request("a", [5, 6, 7], 8)])
        for each in (loaded, load(tiny_model()))
    ]
    assert answers[0] == answers[1]


def test_on_a_cpu_the_step_is_estimated_from_the_models_shape() -> None:
    cpu = device_of(load(tiny_model()))
    assert cpu.is_cpu
    small, large = (
        cpu.step_bytes(Batch(max_num_seqs=seqs, max_num_batched_tokens=tokens)) or 0
        for seqs, tokens in ((4, 64), (8, 512))
    )
    assert 0 < small < large < 100 << 20
