"""Names of the same base model are recognised, whoever published it and in whatever precision."""

from pathlib import Path

import pytest
import torch
from adapter_folders import set_field
from structlog.testing import capture_logs
from tiny import save_adapter, tiny_tokenizer

from shared.protocol.tools import ToolSettings
from worker.adapters.source.base_names import names_another_base
from worker.adapters.source.checkpoint_reader import CheckpointReader
from worker.lora.base.modules import BaseModules
from worker.lora.checkpoint.adapter_files import AdapterFiles

LLAMA = "meta-llama/Llama-3.1-8B-Instruct"
CACHED = "/home/user/.cache/hub/models--meta-llama--Llama-3.1-8B-Instruct/snapshots/0e9e"
SAME = {
    LLAMA: [
        *(LLAMA, "meta-llama/Meta-Llama-3.1-8B-Instruct", "unsloth/Meta-Llama-3.1-8B-Instruct"),
        "unsloth/Meta-Llama-3.1-8B-Instruct-bnb-4bit",
        "unsloth/llama-3.1-8b-instruct-unsloth-bnb-4bit",
        "hugging-quants/Meta-Llama-3.1-8B-Instruct-AWQ-INT4",
        "RedHatAI/Meta-Llama-3.1-8B-Instruct-FP8-dynamic",
        *("/models/Llama-3.1-8B-Instruct/", "C:\\models\\Llama-3.1-8B-Instruct", CACHED),
        "models--unsloth--Llama-3.1-8B-Instruct-bnb-4bit",
    ],
    "/models/Qwen2.5-7B": ["Qwen/Qwen2.5-7B"],
    "Qwen/Qwen3-4B": [
        *("unsloth/Qwen3-4B-unsloth-bnb-4bit", "unsloth/qwen3_4b", "/models/Qwen3-4B-Q4_K_M.gguf"),
        *("Qwen3-4B.Q8_0.gguf", "Qwen3-4B-UD-IQ2_XXS.gguf", "Qwen/Qwen3-4B-GGUF"),
        *("Qwen3-4B-UD-Q4_K_XL", "Qwen3-4B-f16.gguf", "Qwen3-4B-IQ4_NL.gguf"),
    ],
    "mistralai/Mistral-7B-v0.3": ["unsloth/mistral-7b-v0.3-bnb-4bit"],
    "meta-llama/Llama-2-7b-hf": ["unsloth/llama-2-7b-bnb-4bit"],
    "/models/bert--base": ["bert--base"],
}
"""Mirrors, and copies in other precisions, of each served model."""
OTHERS = {
    LLAMA: [
        *("meta-llama/Llama-3.1-8B", "unsloth/Llama-3.1-8B-unsloth-bnb-4bit"),
        *("meta-llama/Llama-3.2-3B-Instruct", "meta-llama/Llama-3.1-70B-Instruct"),
    ],
    "Qwen/Qwen2.5-7B": ["Qwen/Qwen2.5-Math-7B"],
    "/models/Qwen2.5-7B": ["/models/Qwen2.5-7B-sft"],
    "Qwen/Qwen3-4B": ["Qwen/Qwen3-4B-Base"],
}
"""Other sizes and stages."""


@pytest.mark.parametrize(("names", "is_another"), [(SAME, False), (OTHERS, True)])
def test_mirrors_and_quantised_copies_are_the_same_base_and_other_sizes_and_stages_are_not(
    names: dict[str, list[str]], is_another: bool
) -> None:
    for served, others in names.items():
        for trained_on in others:
            assert names_another_base(trained_on, [served]) == is_another, trained_on
            assert names_another_base(served, [trained_on]) == is_another, trained_on


def test_one_of_several_names_is_enough_and_a_name_that_says_nothing_is_no_other_base() -> None:
    for trained_on in (None, "", " ", ".", "./", "/", "-4bit"):
        assert not names_another_base(trained_on, [LLAMA])
    assert not names_another_base("unsloth/Qwen3-4B", ["/models/base", "Qwen/Qwen3-4B"])
    assert not names_another_base("unsloth/Qwen3-4B", [""])


TRAINED_ON = "unsloth/Qwen3-4B-unsloth-bnb-4bit"


def read(
    base: BaseModules, folder: Path, *base_names: str
) -> tuple[str | None, list[dict[str, object]]]:
    """Let a server with these names of its base read the adapter.

    Return the other base that the registry's entry names, and what is logged.
    """
    tokenizer = tiny_tokenizer()
    reader = CheckpointReader(
        base,
        tokenizer,
        base_names=base_names,
        dtype=torch.float32,
        vocab_size=len(tokenizer),
        tool_settings=ToolSettings(),
        reasoning_setting="auto",
    )
    with capture_logs() as lines:
        entry = reader.read("a", AdapterFiles(folder)).registry_entry("/a")
    assert entry.name == "a"
    return entry.other_base, [dict(line) for line in lines]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_adapter(tmp_path, r=4, target_modules=["q_proj"])
    set_field(tmp_path, base_model_name_or_path=TRAINED_ON)
    return tmp_path


def test_another_base_is_logged_and_registered_and_a_quantised_copy_of_the_served_one_is_not(
    base: BaseModules, folder: Path
) -> None:
    other_base, [line] = read(base, folder, "Qwen/Qwen3-8B", "a name")
    assert other_base == TRAINED_ON
    assert line["event"] == "adapter_names_another_base"
    assert line["log_level"] == "warning"
    assert (line["trained_on"], line["served"]) == (TRAINED_ON, "Qwen/Qwen3-8B")
    assert read(base, folder, "/models/base", "Qwen/Qwen3-4B") == (None, [])
