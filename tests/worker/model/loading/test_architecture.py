"""Models that the native engine can't serve are refused by their configuration, in one line."""

import json
from pathlib import Path
from typing import Any

import pytest

from shared.errors import ModelRejected
from worker.model.loader import load_model

VLLM = "use --engine vllm"
KINDS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "unknown": ({"model_type": "zeta9"}, ["model_type 'zeta9'", "upgrade transformers", VLLM]),
    "own code": (
        {"model_type": "zeta9", "auto_map": {"AutoConfig": "configuration_zeta.ZetaConfig"}},
        ["zeta9 needs Python code from the model's repository", VLLM],
    ),
    "own code of a known type": (
        {"model_type": "clip", "auto_map": {"AutoModelForCausalLM": "modeling_clip.Clip"}},
        ["clip needs Python code from the model's repository", VLLM],
    ),
    "images": (
        {"model_type": "gemma3"},
        ["multimodal models aren't served", "gemma3 also takes images, video or sound", VLLM],
    ),
    "images, in a wrapper": ({"model_type": "llava"}, ["llava also takes images", VLLM]),
    "chunks": ({"model_type": "llama4_text"}, ["llama4_text use chunked_attention", VLLM]),
    "chunks and images": (
        {"model_type": "llama4"},
        ["layers of llama4 use chunked_attention", VLLM],
    ),
    "recurrence": ({"model_type": "qwen3_next"}, ["qwen3_next use linear_attention", VLLM]),
    "media of an unknown type": (
        {"model_type": "zeta9_vl", "vision_config": {}},
        ["multimodal models aren't served", "zeta9_vl also takes images", VLLM],
    ),
    "images, in one part": (
        {"model_type": "phi4_multimodal"},
        ["multimodal models aren't served", "phi4_multimodal also takes images", VLLM],
    ),
    "sound": ({"model_type": "audioflamingo3"}, ["audioflamingo3 also takes images", VLLM]),
}
WITHOUT_ADVICE: dict[str, tuple[dict[str, Any], str]] = {
    "encoder": ({"model_type": "t5"}, "t5 has an encoder and a decoder"),
    "encoder of a known type": ({"model_type": "bart"}, "bart has an encoder and a decoder"),
    "two parts for text": ({"model_type": "musicgen"}, "musicgen has an encoder and a decoder"),
    "melody": ({"model_type": "musicgen_melody"}, "musicgen_melody has an encoder and a decoder"),
    "no language model": ({"model_type": "vit"}, "vit isn't a causal language model"),
    "embeddings of images": ({"model_type": "clip"}, "clip isn't a causal language model"),
}
"""Models that no engine serves: config.json, and a part of the message."""


@pytest.mark.parametrize("kind", KINDS)
def test_the_refusal_names_the_model_and_the_reason(kind: str, tmp_path: Path) -> None:
    fields, parts = KINDS[kind]
    (tmp_path / "config.json").write_text(json.dumps(fields))
    with pytest.raises(ModelRejected) as error:
        load_model(str(tmp_path))
    [line] = str(error.value).splitlines()
    for part in [f"--model {tmp_path}", *parts]:
        assert part in line


@pytest.mark.parametrize("kind", WITHOUT_ADVICE)
def test_the_other_engine_is_not_suggested_for_models_that_it_cannot_serve(
    kind: str, tmp_path: Path
) -> None:
    fields, part = WITHOUT_ADVICE[kind]
    (tmp_path / "config.json").write_text(json.dumps(fields))
    with pytest.raises(ModelRejected) as error:
        load_model(str(tmp_path))
    [line] = str(error.value).splitlines()
    assert line.startswith(f"--model {tmp_path}: {part}")
    assert "--engine" not in line


def test_an_adapter_is_not_a_base_model(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelRejected, match="this is a LoRA adapter; name it in --adapters"):
        load_model(str(tmp_path))


@pytest.mark.parametrize("text", ["[]", "{", "{}", '{"model_type": 3}'])
def test_a_broken_configuration_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ModelRejected, match="AutoConfig: "):
        load_model(str(tmp_path))
