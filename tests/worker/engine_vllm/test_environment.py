"""Environment variables of vLLM's processes."""

import pytest

from shared.errors import SettingsError
from shared.settings import WorkerSettings
from worker.engine_vllm.environment import set_environment


def environment(given: dict[str, str] | None = None, **settings: object) -> dict[str, str]:
    found = dict(given or {})
    fields = {"engine": "vllm", "model": "m", **settings}
    set_environment(WorkerSettings(**fields), found)  # type: ignore[arg-type]
    return found


def test_vllm_sends_no_statistics_and_uses_the_runner_of_the_sampler() -> None:
    found = environment()
    assert found["VLLM_NO_USAGE_STATS"] == "1"
    assert found["VLLM_USE_V2_MODEL_RUNNER"] == "0"


def test_the_operators_log_level_stays() -> None:
    assert environment({"VLLM_LOGGING_LEVEL": "DEBUG"})["VLLM_LOGGING_LEVEL"] == "DEBUG"


@pytest.mark.parametrize(
    ("visible", "settings", "expected"),
    [
        (None, {"device": "cuda:2"}, "2"),
        (None, {"device": "cuda:4", "tensor_parallel": 4}, "4,5,6,7"),
        ("3,5,7", {"device": "cuda:1"}, "5"),
        ("GPU-a,GPU-b", {"device": "cuda:0", "pipeline_parallel": 2}, "GPU-a,GPU-b"),
    ],
)
def test_a_worker_uses_the_gpus_from_its_device_on(
    visible: str | None, settings: dict[str, object], expected: str
) -> None:
    given = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    assert environment(given, **settings)["CUDA_VISIBLE_DEVICES"] == expected


def test_without_a_number_all_visible_gpus_stay() -> None:
    assert "CUDA_VISIBLE_DEVICES" not in environment(device="cuda")


@pytest.mark.parametrize("device", ["cuda:1", "tpu"])
def test_a_device_that_vllm_cannot_use_is_refused_by_name(device: str) -> None:
    with pytest.raises(SettingsError, match=f"--device {device}"):
        environment({"CUDA_VISIBLE_DEVICES": "0"}, device=device)


def test_on_a_cpu_fewer_threads_than_cores_are_not_bound() -> None:
    found = environment(device="cpu", threads=1)
    assert found["VLLM_TARGET_DEVICE"] == "cpu"
    bound = found.get("VLLM_CPU_OMP_THREADS_BIND"), found.get("OMP_NUM_THREADS")
    assert bound in (("nobind", "1"), (None, None))  # the latter on a machine with one core
