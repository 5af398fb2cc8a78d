"""The report names what is missing, and how to mend it."""

from dataclasses import replace

import pytest

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
from ops.doctor.report import Mark, Report, Row, report, size

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
