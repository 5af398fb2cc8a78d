"""vLLM's processes: environment, interpreter, sampling parameters, and checkpoints for them."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_requests import make_request
from peft import PeftModel
from tiny import save_adapter, tiny_model

from shared.errors import AdapterNotServed, JobError, SettingsError
from shared.protocol.capabilities import Capabilities
from shared.settings import WorkerSettings
from worker.engine.request import ChoiceSampling, Request
from worker.engine.rules import NO_TOKEN_LEFT
from worker.engine_vllm.adapters import VllmHostMemory, scratch_folder, slot_bytes
from worker.engine_vllm.environment import set_environment
from worker.engine_vllm.row_params import extra_args_of, row_params
from worker.engine_vllm.skeleton import skeleton_modules
from worker.engine_vllm.token_check import reason_not_allowed
from worker.lora.base.modules import BaseModules, base_modules
from worker.lora.checkpoint.adapter import LoRAAdapter, read_checkpoint
from worker.lora.checkpoint.adapter_files import AdapterFiles


def environment(given: dict[str, str] | None = None, **settings: object) -> dict[str, str]:
    found = dict(given or {})
    fields = {"engine": "vllm", "model": "m", **settings}
    set_environment(WorkerSettings(**fields), found)  # type: ignore[arg-type]
    return found


def test_vllm_sends_no_statistics_uses_the_samplers_runner_and_keeps_the_log_level() -> None:
    found = environment({"VLLM_LOGGING_LEVEL": "DEBUG"})
    assert found["VLLM_NO_USAGE_STATS"] == "1"
    assert found["VLLM_USE_V2_MODEL_RUNNER"] == "0"
    assert found["VLLM_LOGGING_LEVEL"] == "DEBUG"
    found = environment(device="cpu", threads=1)
    assert found["VLLM_TARGET_DEVICE"] == "cpu"
    bound = found.get("VLLM_CPU_OMP_THREADS_BIND"), found.get("OMP_NUM_THREADS")
    assert bound in (("nobind", "1"), (None, None))  # the latter on a machine with one core


@pytest.mark.parametrize(
    ("visible", "settings", "expected"),
    [
        (None, {"device": "cuda"}, None),
        (None, {"device": "cuda:2"}, "2"),
        (None, {"device": "cuda:4", "tensor_parallel": 4}, "4,5,6,7"),
        ("3,5,7", {"device": "cuda:1"}, "5"),
        ("GPU-a,GPU-b", {"device": "cuda:0", "pipeline_parallel": 2}, "GPU-a,GPU-b"),
    ],
)
def test_a_worker_uses_the_gpus_from_its_device_on(
    visible: str | None, settings: dict[str, object], expected: str | None
) -> None:
    given = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    assert environment(given, **settings).get("CUDA_VISIBLE_DEVICES") == expected


def test_a_device_that_vllm_cannot_use_is_refused_by_name() -> None:
    for device in ("cuda:1", "tpu"):
        with pytest.raises(SettingsError, match=f"--device {device}"):
            environment({"CUDA_VISIBLE_DEVICES": "0"}, device=device)


COMMAND = [sys.executable, "-P", "-m", "ops.cli", "worker", "model", "--engine", "vllm"]


def run(*flags: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([*COMMAND, *flags], capture_output=True, text=True, check=False)


def test_the_python_of_the_setting_gets_the_same_arguments(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "$@"\n')
    python.chmod(0o755)
    done = run("--vllm-python", str(python))
    assert done.stdout.split()[:6] == ["-P", "-m", "ops.cli", "worker", "model", "--engine"]


@pytest.mark.parametrize("name", ["missing", sys.executable])
@pytest.mark.slow
def test_a_python_without_vllm_is_an_error_that_says_what_to_do(name: str) -> None:
    done = run("--vllm-python", name)
    assert done.returncode == 2
    assert "make vllm" in done.stderr
    assert name in done.stderr
    assert "Traceback" not in done.stderr


def request(**fields: Any) -> Request:
    sampling = ChoiceSampling(seed=2**63 - 1, **fields.pop("sampling", {}))
    return make_request(prompt=[1, 2, 3], sampling=sampling, **fields)


@pytest.mark.parametrize(
    "sampling",
    [
        {"temperature": 0.7, "top_p": 0.9, "top_k": 40, "min_p": 0.1, "choice": 3},
        {"temperature": 0.0, "presence_penalty": 0.5, "repetition_penalty": 1.1},
        {"logit_bias": ((5, -100.0), (7, 2.5)), "allowed_token_ids": (5, 7)},
        {"bad_words": ((1, 2), (9,)), "min_tokens": 4},
    ],
)
def test_parameters_survive_a_message(sampling: dict[str, Any]) -> None:
    asked = request(sampling=sampling, output_ids=[4, 5], stop_ids=frozenset({2, 8}))
    received = row_params(json.loads(json.dumps(extra_args_of(asked))))
    assert received.sampling == asked.sampling
    assert received.num_shown == 2
    assert received.stop_ids == asked.stop_ids


def test_plainly_greedy_requests_are_left_to_vllm_and_have_no_parameters() -> None:
    assert extra_args_of(request(sampling={"temperature": 0.0, "logprobs": 3})) is None
    assert row_params(None) is None
    assert row_params({"other": 1}) is None


@pytest.mark.parametrize(
    ("fields", "token", "reason"),
    [
        ({"sampling": {"allowed_token_ids": (5,)}}, 5, None),
        ({"sampling": {"allowed_token_ids": (5,)}}, 6, NO_TOKEN_LEFT),
        ({"sampling": {"bad_words": ((7,),)}}, 7, NO_TOKEN_LEFT),
        ({"sampling": {"bad_words": ((4, 7),)}, "output_ids": [4]}, 7, NO_TOKEN_LEFT),
        ({"sampling": {"bad_words": ((4, 7),)}, "output_ids": [5]}, 7, None),
        ({"sampling": {"bad_words": ((4, 7),)}}, 7, None),
        ({"sampling": {"min_tokens": 1}, "stop_ids": frozenset({2})}, 2, NO_TOKEN_LEFT),
        ({"sampling": {"min_tokens": 1}, "stop_ids": frozenset({2}), "output_ids": [4]}, 2, None),
    ],
)
def test_a_token_that_the_masks_forbid_means_that_none_was_left(
    fields: dict[str, Any], token: int, reason: JobError | None
) -> None:
    assert reason_not_allowed(request(**fields), token) == reason


def test_only_folders_of_processes_that_have_ended_are_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left = [tmp_path / f"lorikeet-vllm-{pid}-x" for pid in (ended.pid, os.getpid())]
    for folder in left:
        folder.mkdir()
    own = scratch_folder()
    assert own.is_dir()
    assert [folder.exists() for folder in left] == [False, True]


PROMPT = torch.tensor([[7, 8, 9, 10]])
SERVES = Capabilities(kinds=frozenset(), features=frozenset(), max_rank=16)


@pytest.fixture(scope="module")
def base() -> BaseModules:
    return skeleton_modules("tiny", tiny_model().config)


def read(folder: Path, base: BaseModules) -> LoRAAdapter:
    return read_checkpoint("a", AdapterFiles(folder), base, dtype=torch.float32, serves=SERVES)


@pytest.fixture
def adapter(tmp_path: Path, base: BaseModules) -> LoRAAdapter:
    return read(save_adapter(tmp_path / "a", target_modules=["q_proj"]), base)


def memory(folder: Path, *, max_bytes: int = 1 << 30) -> VllmHostMemory:
    return VllmHostMemory(folder, max_bytes=max_bytes, slot_bytes=1000)


def logits(folder: Path) -> torch.Tensor:
    with torch.inference_mode():
        model = PeftModel.from_pretrained(tiny_model(), str(folder)).eval()
        out: torch.Tensor = model(input_ids=PROMPT).logits
    return out


def test_the_skeleton_has_the_decoders_linears_without_their_weights(base: BaseModules) -> None:
    whole = base_modules(tiny_model())
    assert dict(base.linears) == {n: s for n, s in whole.linears.items() if n != whole.head}
    assert base.all_linear == whole.all_linear
    widths = sum(shape.in_features + shape.out_features for shape in base.linears.values())
    assert slot_bytes(base.linears, max_rank=16) == widths * 16 * 2


def test_a_checkpoint_computes_what_the_adapter_computes(tmp_path: Path, base: BaseModules) -> None:
    source = save_adapter(
        tmp_path / "source",
        r=4,
        lora_alpha=7,
        use_rslora=True,
        rank_pattern={"down_proj": 6},
        alpha_pattern={"q_proj": 3},
        target_modules=["q_proj", "down_proj"],
    )
    image = memory(tmp_path / "images").put(read(source, base))
    torch.testing.assert_close(logits(image.folder), logits(source), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("fields", "reason"), [({"use_dora": True}, "DoRA"), ({"r": 24}, "rank 24, above 16")]
)
def test_what_the_engine_does_not_serve_is_refused_by_name(
    tmp_path: Path, base: BaseModules, fields: dict[str, object], reason: str
) -> None:
    folder = save_adapter(tmp_path / "a", target_modules=["q_proj"], **fields)
    with pytest.raises(AdapterNotServed, match=reason):
        read(folder, base)


def test_files_are_kept_within_the_budget_and_the_least_recently_used_go(
    tmp_path: Path, base: BaseModules
) -> None:
    adapters = [
        read(save_adapter(tmp_path / f"s{i}", seed=i, target_modules=["q_proj"]), base)
        for i in range(3)
    ]
    probe = memory(tmp_path / "probe")
    probe.put(adapters[0])
    host = memory(tmp_path / "images", max_bytes=2 * probe.num_bytes)
    images = [host.put(adapter) for adapter in adapters[:2]]
    for image in images:
        host.release(image)
    host.touch(adapters[0].version)
    host.release(host.put(adapters[2]))
    assert [adapter.version in host for adapter in adapters] == [True, False, True]
    assert [image.folder.exists() for image in images] == [True, False]
    large = read(save_adapter(tmp_path / "large", r=16, target_modules="all-linear"), base)
    host.release(host.put(large))
    assert large.version not in host
    assert adapters[2].version in host, "a checkpoint that never fits leaves the others"


def test_files_that_do_not_fit_stay_until_they_are_released(
    tmp_path: Path, adapter: LoRAAdapter
) -> None:
    host = memory(tmp_path / "images", max_bytes=0)
    image = host.put(adapter)
    assert adapter.version not in host
    assert image.folder.exists()
    host.release(image)
    assert not image.folder.exists()
    host.release(host.image(adapter))  # which has no files
    assert not host.has_room(1)


def test_a_dropped_version_is_written_again(tmp_path: Path, adapter: LoRAAdapter) -> None:
    host = memory(tmp_path / "images")
    first = host.put(adapter)
    host.release(first)
    host.drop(adapter.version)
    assert host.take(adapter.version) is None
    assert not first.folder.exists()
    assert host.put(adapter).folder.exists()
