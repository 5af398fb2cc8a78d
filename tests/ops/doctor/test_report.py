"""`lorikeet doctor`: facts about machine, Redis and model, and the report of what is missing."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from kernel_sets import linear_kernels
from tiny import save_adapter, save_tiny_model

from ops.doctor.adapters import adapter_facts
from ops.doctor.facts import (
    AdapterFacts,
    BaseFacts,
    Facts,
    Fit,
    Folder,
    Gpu,
    Machine,
    Plan,
    Problem,
    RedisFacts,
)
from ops.doctor.machine import folder_facts, machine_facts
from ops.doctor.model_shape import demo_shape, served_shape
from ops.doctor.redis_check import own_redis_facts, redis_facts
from ops.doctor.report import Mark, Report, Row, report, size
from ops.local.embedded_redis import EmbeddedRedis
from shared.settings import PoolSettings
from shared.store.redis.connection import connect
from worker.model.kv_cache import KVShape
from worker.model.loader import load_model

GIB, MIB = 1 << 30, 1 << 20
MACHINE = Machine(
    cpu="EPYC",
    cores=8,
    instruction_sets=("AVX2", "AVX-512"),
    memory=32 * GIB,
    free_memory=16 * GIB,
    gpus=(),
    compiler="/usr/bin/g++",
    python="3.12.1",
    torch="2.9.0",
    cuda=None,
    has_triton=False,
    vllm=None,
    folders=(Folder(purpose="cache folder", path="/cache", free=GIB),),
    missing_packages=(),
)
PLAN = Plan(
    engine="native",
    dtype="bfloat16",
    devices=("cpu",),
    threads=8,
    kernels="native",
    url="127.0.0.1:23333",
)
BASE = BaseFacts(
    source="demo",
    place="/cache/demo",
    architecture="LlamaForCausalLM",
    num_parameters=135_000_000,
    weight_bytes=270 * MIB,
    max_model_len=8192,
)
FIT = Fit(
    kv_bytes=2 * GIB,
    kv_tokens=90_000,
    max_model_len=8192,
    full_context=8192,
    typical_context=2048,
    max_num_seqs=64,
    step_bytes=150 * MIB,
    adapter_bytes=GIB,
    host_bytes=2 * GIB,
    is_one_memory=True,
    bytes_per_adapter=10 * MIB,
    rank=16,
)
FACTS = Facts(
    machine=MACHINE,
    redis=RedisFacts(url=None, server="Valkey 9.0"),
    plan=PLAN,
    base=BASE,
    adapters=(AdapterFacts(name="sql", source="/sql", rank=4, num_bytes=2 * MIB),),
    fit=FIT,
)
BROKEN = Problem("it is broken", "mend it")
BAD_ADAPTER = AdapterFacts(name="sql", source="/sql", problem=BROKEN)
BAD_FOLDER = Folder(purpose="cache folder", path="/c", free=0, problem=BROKEN)
INSTALL = "pip install lorikeet-serve"
GPU = Gpu(name="L4", total=24 * GIB, free=23 * GIB)


def rows(found: Report) -> dict[str, Row]:
    return {row.name: row for section in found.sections for row in section.rows}


def test_a_complete_machine_starts_and_has_nothing_to_mend() -> None:
    found = report(FACTS)
    assert found.starts
    assert (found.missing, found.hints) == ([], [])


@pytest.mark.parametrize(
    ("changes", "name", "fix"),
    [
        ({"machine": replace(MACHINE, torch=None)}, "torch", INSTALL),
        ({"machine": replace(MACHINE, missing_packages=("peft",))}, "packages", INSTALL),
        ({"base": replace(BASE, problem=BROKEN)}, "served", "mend it"),
        ({"redis": RedisFacts(url="redis://h", server="", problem=BROKEN)}, "Redis", "mend it"),
        ({"problems": (BROKEN,)}, "settings", "mend it"),
        ({"plan": replace(PLAN, engine="vllm")}, "vLLM", "make vllm"),
        ({"adapters": (BAD_ADAPTER,)}, "sql", "mend it"),
        ({"machine": replace(MACHINE, folders=(BAD_FOLDER,))}, "cache folder", "mend it"),
    ],
)
def test_what_is_missing_prevents_the_start_and_has_a_fix(
    changes: dict[str, object], name: str, fix: str
) -> None:
    found = report(replace(FACTS, **changes))
    assert not found.starts
    [row] = found.missing
    assert row.name == name
    assert fix in row.fix


@pytest.mark.parametrize(
    ("changes", "name", "fix"),
    [
        ({"plan": replace(PLAN, kernels="", kernels_problem=BROKEN)}, "kernels", "mend it"),
        ({"redis": RedisFacts(url="r", server="Redis", warnings=(BROKEN,))}, "Redis", "mend it"),
        ({"plan": replace(PLAN, gpu_problem="torch is for CPUs")}, "GPUs", "install torch"),
        ({"machine": replace(MACHINE, untested=BROKEN)}, "versions", "mend it"),
        ({"fit": replace(FIT, max_model_len=4096)}, "longest context", "--kv-cache-mb"),
        ({"skips_bad_adapters": True, "adapters": (BAD_ADAPTER,)}, "sql", "mend it"),
    ],
)
def test_what_could_be_better_is_a_hint(changes: dict[str, object], name: str, fix: str) -> None:
    found = report(replace(FACTS, **changes))
    assert found.starts
    [row] = found.hints
    assert row.name == name
    assert fix in row.fix


@pytest.mark.parametrize("engine", ["vllm", "simulated"])
def test_engines_without_torch_start_without_torch(engine: str) -> None:
    machine = replace(MACHINE, torch=None, vllm="/vllm/bin/python")
    assert report(replace(FACTS, machine=machine, plan=replace(PLAN, engine=engine))).starts


def test_streams_and_adapters_follow_from_the_memory() -> None:
    shown = rows(report(FACTS))
    assert "43 with 2,048 tokens each, 10 at full context" in shown["streams at once"].value
    assert shown["adapters"].value.startswith("102 of rank 16, 10 MiB each")
    assert "204 more in 2.0 GiB of host memory" in shown["adapters"].value


def test_the_number_of_sequences_limits_the_streams() -> None:
    fit = replace(FIT, kv_tokens=10**9)
    assert (fit.full_streams, fit.typical_streams) == (64, 64)


def test_a_gpu_is_shown_with_its_memory() -> None:
    machine = replace(MACHINE, gpus=(GPU,), cuda="12.8", has_triton=True)
    shown = rows(report(replace(FACTS, machine=machine)))
    assert shown["GPU 0"].value == "L4, 24.0 GiB, 23.0 GiB free"
    assert "GPUs" not in shown
    assert shown["torch"].value == "2.9.0, built for CUDA 12.8, with Triton"


def test_what_could_not_be_found_out_is_left_out() -> None:
    found = report(Facts(hints=(Problem("the machine couldn't be checked"),)))
    assert [section.title for section in found.sections] == ["What will be used"]
    assert found.hints[0].mark is Mark.HINT


@pytest.mark.parametrize(
    ("num_bytes", "text"), [(3 * GIB // 2, "1.5 GiB"), (3 * MIB, "3 MiB"), (2048, "2 KiB")]
)
def test_sizes_are_readable(num_bytes: int, text: str) -> None:
    assert size(num_bytes) == text


def test_a_folder_that_does_not_exist_yet_can_be_created(tmp_path: Path) -> None:
    found = folder_facts("cache", tmp_path / "a" / "b", setting="X", least_free=1)
    assert found.problem is None
    assert found.free is not None


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    found = folder_facts("cache", tmp_path / "file" / "b", setting="XDG", least_free=1)
    assert found.problem is not None
    assert f"{tmp_path / 'file'} is a file" in found.problem.text
    assert "set XDG to another folder" in found.problem.fix


def test_a_folder_with_too_little_space_or_that_nobody_can_write_to_is_a_problem(
    tmp_path: Path,
) -> None:
    found = folder_facts("cache", tmp_path, setting="X", least_free=1 << 60)
    assert found.problem is not None
    assert "MiB free" in found.problem.text
    assert folder_facts("cache", Path("/proc/lorikeet"), setting="X", least_free=1).problem


def test_this_machine_has_torch_and_cores() -> None:
    found = machine_facts(None, ())
    assert found.cores >= 1
    assert found.torch
    assert found.missing_packages == ()
    assert 0 < found.free_memory < found.memory


def test_the_program_of_the_own_redis_is_named() -> None:
    found = own_redis_facts()
    assert found.problem is None
    assert found.server.split()[1][0].isdigit()


async def test_a_redis_without_an_append_only_file_is_warned_of(
    own_server: EmbeddedRedis,
) -> None:
    found = await redis_facts(PoolSettings(redis_url=own_server.url))
    assert found.problem is None
    assert "noeviction" in found.details
    [warning] = found.warnings
    assert "appendonly yes" in warning.fix


@pytest.mark.parametrize(
    ("setting", "value", "durability", "part"),
    [
        ("maxmemory-policy", "allkeys-lru", "default", "set it to noeviction"),
        ("requirepass", "sesame", "default", "needs a password"),
        ("appendonly", "no", "strict", "--durability strict"),
    ],
)
async def test_a_redis_that_cannot_be_used_is_a_problem(
    own_server: EmbeddedRedis, setting: str, value: str, durability: Any, part: str
) -> None:
    client = connect(own_server.url)
    await client.config_set(setting, value)
    await client.aclose()
    found = await redis_facts(PoolSettings(redis_url=own_server.url, durability=durability))
    assert found.problem is not None
    assert part in found.problem.text


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("s3://bucket/sql", "s3://bucket/sql, fetched by the workers"),
        ("https://h/x.zip?signature=secret", "https://h/x.zip, fetched by the workers"),
        ("org/repo@v2", "org/repo@v2, from the hub"),
    ],
)
def test_adapters_elsewhere_are_not_fetched(source: str, shown: str) -> None:
    facts = adapter_facts("sql", source, bases_name="base")
    assert (facts.source, facts.problem) == (shown, None)


@pytest.mark.parametrize("model_type", ["llama", "gemma2", "mixtral"])
def test_sizes_equal_those_of_the_loaded_model(model_type: str, tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path, model_type)
    shape = served_shape(str(folder), folder, torch.float32)
    loaded = load_model(str(folder), dtype="float32", device="cpu")
    assert shape.cache == loaded.cache
    assert shape.max_model_len == loaded.max_model_len
    padding = loaded.weight_bytes - shape.weight_bytes  # of packed weights, to whole vectors
    assert 0 <= padding < 0.2 * shape.weight_bytes


@pytest.mark.parametrize("model_type", ["gpt2", "gemma3n_text"])
def test_models_with_dropout_or_a_width_for_each_layer_have_a_size(
    model_type: str, tmp_path: Path
) -> None:
    folder = save_tiny_model(tmp_path, model_type)
    loaded = load_model(str(folder), dtype="float32", device="cpu")
    assert served_shape(str(folder), folder, torch.float32).max_model_len == loaded.max_model_len


@pytest.mark.parametrize("is_tied", [False, True])
def test_quantised_linears_take_as_much_memory_as_in_the_loaded_model(
    is_tied: bool, tmp_path: Path
) -> None:
    linear_kernels(torch.bfloat16)
    sizes = {"hidden_size": 192, "intermediate_size": 480, "vocab_size": 480}
    folder = save_tiny_model(tmp_path, tie_word_embeddings=is_tied, **sizes)
    shape = served_shape(str(folder), folder, torch.bfloat16, "int8")
    loaded = load_model(str(folder), device="cpu", quantize="int8")
    assert 0 <= loaded.weight_bytes - shape.weight_bytes < 0.02 * shape.weight_bytes


def test_the_size_of_an_adapter_on_all_linears_equals_that_of_peft(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path / "base")
    adapter = save_adapter(tmp_path / "adapter", r=16, target_modules="all-linear")
    num_bytes = (adapter / "adapter_model.safetensors").stat().st_size
    shape = served_shape(str(folder), folder, torch.float32)
    header_bytes = 8192
    assert 0 <= num_bytes - shape.adapter_bytes(16) <= header_bytes


def test_the_demo_has_a_size_before_it_is_converted() -> None:
    shape = demo_shape(torch.bfloat16)
    assert shape.num_parameters == 134_515_008
    assert shape.cache.kv == [KVShape(3, 64, 64)] * 30
