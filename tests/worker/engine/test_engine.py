"""The native engine: its memory, its limits, and errors of single requests."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest
import torch
from adapter_folders import read_adapter
from engines import engine_of, greedy_request, load, random_prompt, run
from tiny import save_adapter, tiny_model

from shared.errors import SettingsError
from shared.protocol.ids import AdapterVersion
from shared.protocol.results import FinishReason
from worker.engine.adapter_lru import AdapterLRU, version_to_evict
from worker.engine.config import EngineConfig
from worker.engine.engine import NativeEngine
from worker.engine.interface import LEAST_RECENTLY_USED, EvictionOrder
from worker.engine.request import RequestId, StepOutput
from worker.lora.checkpoint.adapter import LoRAAdapter
from worker.model.kv_cache import bytes_per_block
from worker.model.loader import LoadedModel


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    """A model for one engine at a time."""
    return load(tiny_model("llama"))


def last_outputs(engine: NativeEngine) -> dict[RequestId, StepOutput]:
    """Run until all requests end and return each one's last output."""
    last: dict[RequestId, StepOutput] = {}
    while engine.has_work:
        last |= {output.request_id: output for output in engine.step()}
    return last


def assert_empty(engine: NativeEngine) -> None:
    stats = engine.stats()
    assert stats.kv_blocks_free == stats.kv_blocks
    assert stats.num_running == stats.num_waiting == 0


def adapters(engine: NativeEngine, root: Path, count: int, rank: int = 8) -> list[LoRAAdapter]:
    config = {"r": rank, "target_modules": ["q_proj", "down_proj"]}
    folders = [save_adapter(root / str(seed), seed=seed, **config) for seed in range(count)]
    return [read_adapter(engine.base, folder, f"a{i}") for i, folder in enumerate(folders)]


def test_logits_that_are_not_finite_end_only_their_requests_and_leave_nothing_in_the_cache(
    loaded: LoadedModel, tmp_path: Path
) -> None:
    engine, _ = engine_of(loaded, num_blocks=40)
    (adapter,) = adapters(engine, tmp_path, 1)
    for stack in adapter.modules.stacks:
        stack.b.fill_(3e38)
    engine.add_adapter(adapter)
    for i in range(4):
        engine.add(greedy_request(f"bad{i}", random_prompt(i, 100), 5, adapter.version))
    engine.add(greedy_request("good", random_prompt(1, 9), 5))
    last = last_outputs(engine)
    assert last.pop(RequestId("good")).finish is FinishReason.LENGTH
    assert all("finite" in output.error.message for output in last.values())
    assert_empty(engine)
    requests = [greedy_request(f"good{i}", random_prompt(i, 5 + 13 * i), 20) for i in range(8)]
    assert all(len(tokens) == 20 for tokens in run(engine, requests).values())


def test_steps_continue_while_an_adapter_is_written(loaded: LoadedModel, tmp_path: Path) -> None:
    engine, _ = engine_of(loaded)
    old, new = adapters(engine, tmp_path, 2)
    engine.add_adapter(old)
    alone = run(engine, [greedy_request("alone", random_prompt(1, 9), 20, old.version)])
    may_write, made = Event(), engine.layout.image(new)

    def wait_and_copy(targets: Sequence[torch.Tensor]) -> None:
        assert may_write.wait(60)
        made.copy_to(targets)

    image = replace(made, copy_to=wait_and_copy)
    reserved = engine.place(image).reserved
    assert reserved is not None
    with ThreadPoolExecutor() as threads:
        written = threads.submit(lambda: engine.write_adapter(reserved, image))
        beside = run(engine, [greedy_request("beside", random_prompt(1, 9), 20, old.version)])
        assert not written.done()
        may_write.set()
        written.result()
    assert beside[RequestId("beside")] == alone[RequestId("alone")]
    engine.activate_adapter(reserved, image)
    answer = run(engine, [greedy_request("new", random_prompt(1, 9), 20, new.version)])
    fresh, _ = engine_of(loaded)
    fresh.add_adapter(new)
    expected = run(fresh, [greedy_request("new", random_prompt(1, 9), 20, new.version)])
    assert answer == expected


def small_engine(loaded: LoadedModel, root: Path, num_adapters: int) -> NativeEngine:
    """Return an engine whose adapter memory holds `num_adapters` adapters of rank 8."""
    probe, _ = engine_of(loaded)
    probe.add_adapter(adapters(probe, root / "probe", 1)[0])
    config = EngineConfig(
        kv_cache_bytes=100 * bytes_per_block(loaded.cache.kv, loaded.dtype),
        adapter_bytes=num_adapters * probe.stats().adapter_bytes,
    )
    return NativeEngine(loaded, config)


def test_nobody_is_evicted_for_an_adapter_that_still_has_no_room(
    loaded: LoadedModel, tmp_path: Path
) -> None:
    engine = small_engine(loaded, tmp_path, 2)
    idle, used = adapters(engine, tmp_path, 2)
    (large,) = adapters(engine, tmp_path / "large", 1, rank=16)
    engine.add_adapter(idle)
    engine.add_adapter(used)
    engine.add(greedy_request("a", random_prompt(1, 9), 50, used.version))
    placing = engine.place(engine.layout.image(large))
    assert (placing.reserved, placing.evicted) == (None, [])
    last_outputs(engine)
    assert engine.place(engine.layout.image(large)).evicted == [idle.version, used.version]


def test_a_context_or_a_cache_that_does_not_fit_stops_the_start(loaded: LoadedModel) -> None:
    block = bytes_per_block(loaded.cache.kv, loaded.dtype)
    with pytest.raises(SettingsError, match="--max-model-len 600 exceeds the model's limit of 512"):
        NativeEngine(loaded, EngineConfig(max_model_len=600))
    with pytest.raises(SettingsError, match="--kv-cache-mb: it holds 32 tokens"):
        NativeEngine(loaded, EngineConfig(max_model_len=100, kv_cache_bytes=2 * block))
    with pytest.raises(SettingsError, match="--kv-cache-mb is too small"):
        NativeEngine(loaded, EngineConfig(kv_cache_bytes=block - 1))
    with pytest.raises(SettingsError, match=r"--kv-cache-mb: \d+ MiB can't be allocated on cpu"):
        NativeEngine(loaded, EngineConfig(kv_cache_bytes=1 << 60))
    assert NativeEngine(loaded, EngineConfig(kv_cache_bytes=2 * block)).max_model_len == 32


def test_a_shared_prefix_gives_the_same_answers_to_base_and_adapters(
    loaded: LoadedModel, tmp_path: Path
) -> None:
    folders = {"a": save_adapter(tmp_path / "a", seed=1), "b": save_adapter(tmp_path / "b", seed=2)}
    engine, versions = engine_of(loaded, folders)
    prefix = random_prompt(0, 40)

    def ask(round_: str) -> list[list[int]]:
        requests = [
            greedy_request(f"{round_}{name}{tail}", [*prefix, 10 + tail], 12, versions.get(name))
            for name in ("base", *versions)
            for tail in range(2)
        ]
        return list(run(engine, requests).values())

    first = ask("cold")
    num_cached = engine.stats().num_cached_tokens
    assert ask("warm") == first
    assert engine.stats().num_cached_tokens - num_cached == 6 * 32
    assert len({tuple(answer) for answer in first}) > 3


def test_tenants_and_salts_share_no_prefix_and_the_cache_can_be_switched_off(
    loaded: LoadedModel,
) -> None:
    prompt = random_prompt(0, 40)
    for caches_prefixes, pairs, num_expected in (
        (True, (("x", ""), ("x", "")), 32),
        (True, (("x", "s"), ("x", "s")), 32),
        (True, (("x", ""), ("y", "")), 0),
        (True, (("x", "s"), ("x", "t")), 0),
        (True, (("x", ""), ("x", "s")), 0),
        (False, (("x", ""), ("x", "")), 0),
    ):
        engine, _ = engine_of(loaded, caches_prefixes=caches_prefixes)
        for number, (tenant, salt) in enumerate(pairs):
            request = greedy_request(str(number), prompt, 4)
            request.tenant, request.cache_salt = tenant, salt
            run(engine, [request])
        assert engine.stats().num_cached_tokens == num_expected


A, B, C = (AdapterVersion(f"{name}@1") for name in "abc")


def test_the_least_recently_used_goes_unless_the_order_says_otherwise() -> None:
    residents = AdapterLRU()
    for version in (A, B, C):
        residents.add(version, f"weights of {version}")
    for _ in range(2):
        residents.discard(B)
    assert B not in residents
    assert list(residents) == [A, C]
    assert version_to_evict([A, B, C], LEAST_RECENTLY_USED) == A
    assert version_to_evict([A, B, C], EvictionOrder(first={C, B})) == B
    assert version_to_evict([A, B, C], EvictionOrder(last={A})) == B
    assert version_to_evict([A, B, C], EvictionOrder(last={A, B, C})) == A
    assert version_to_evict([A, B, C], EvictionOrder(first={C}, last={A, C})) == C
