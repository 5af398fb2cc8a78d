"""Arguments of vLLM: what passes through, and what is refused by name."""

from pathlib import Path
from typing import Any

import pytest
from vllm.engine.arg_utils import EngineArgs

from shared.errors import SettingsError
from shared.protocol.images import MAX_IMAGES
from shared.settings import WorkerSettings
from worker.engine_vllm.arguments import engine_args, num_slots, rank_of


def settings(**fields: Any) -> WorkerSettings:
    return WorkerSettings(engine="vllm", model="m", device="cpu", **fields)


def arguments(*, reads_images: bool = False, **fields: Any) -> EngineArgs:
    return engine_args(
        settings(**fields),
        Path("m"),
        vocab_size=100,
        eos_ids=[2],
        num_slots=3,
        linears=["model.layers.0.q_proj", "model.layers.1.q_proj"],
        reads_images=reads_images,
    )


def test_a_model_that_reads_images_is_served_with_a_limited_number_and_no_cache_of_them() -> None:
    args = arguments(reads_images=True, vllm_args="--limit-mm-per-prompt '{\"video\": 2}'")
    assert args.limit_mm_per_prompt == {"image": MAX_IMAGES, "video": 2, "audio": 0}
    assert args.mm_processor_cache_gb == 0
    assert not args.skip_tokenizer_init


def test_settings_and_further_arguments_reach_vllm() -> None:
    args = arguments(
        tensor_parallel=4,
        pipeline_parallel=2,
        quantization="awq",
        max_lora_rank=20,
        vllm_args="--block-size 32 --enforce-eager",
    )
    assert (args.block_size, args.enforce_eager) == (32, True)
    assert (args.tensor_parallel_size, args.pipeline_parallel_size) == (4, 2)
    assert (args.quantization, args.max_lora_rank) == ("awq", 32)
    assert (args.max_loras, args.max_cpu_loras) == (3, 3)
    assert args.lora_target_modules == ["q_proj"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("-tp 2", "--tensor-parallel"),
        ("--max-loras 2", "--adapter-memory-mb"),
        ("--data-parallel-size 2", "start several workers"),
        ("--logprobs-mode processed_logprobs", "the model's own"),
        ('--speculative-config \'{"model":"n"}\'', "sampler"),
        ("--no-such-argument", "no-such-argument"),
        ("--block-size x", "block-size"),
        ("'unclosed", "No closing quotation"),
        ("--help", "--help"),
    ],
)
def test_arguments_that_cannot_be_set_are_refused_by_name(text: str, reason: str) -> None:
    with pytest.raises(SettingsError, match=reason) as refused:
        arguments(vllm_args=text)
    assert str(refused.value).startswith("--vllm-args")


def test_a_rank_above_vllms_largest_and_memory_without_room_for_a_slot_are_refused() -> None:
    with pytest.raises(SettingsError, match="--max-lora-rank"):
        rank_of(settings(max_lora_rank=1024))
    assert num_slots(settings(adapter_memory_mb=10), 3 << 20) == 3
    with pytest.raises(SettingsError, match="--adapter-memory-mb"):
        num_slots(settings(adapter_memory_mb=2), 3 << 20)
