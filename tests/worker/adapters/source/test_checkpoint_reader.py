"""An adapter that names another base model is served, and the log names both models."""

from pathlib import Path

import pytest
import torch
from adapter_folders import set_field
from structlog.testing import capture_logs
from tiny import save_adapter, tiny_tokenizer

from worker.adapters.source.checkpoint_reader import CheckpointReader
from worker.lora.base.modules import BaseModules
from worker.lora.checkpoint.adapter_files import AdapterFiles

TRAINED_ON = "unsloth/Qwen3-4B-unsloth-bnb-4bit"


def warnings(base: BaseModules, folder: Path, *base_names: str) -> list[dict[str, object]]:
    """Return what is logged while a server with these names of its base reads the adapter."""
    tokenizer = tiny_tokenizer()
    reader = CheckpointReader(
        base,
        tokenizer,
        base_names=base_names,
        dtype=torch.float32,
        vocab_size=len(tokenizer),
        tool_setting="auto",
        reasoning_setting="auto",
    )
    with capture_logs() as lines:
        assert reader.read("a", AdapterFiles(folder)).weights.name == "a"
    return [dict(line) for line in lines]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_adapter(tmp_path, r=4, target_modules=["q_proj"])
    set_field(tmp_path, base_model_name_or_path=TRAINED_ON)
    return tmp_path


def test_another_base_is_logged(base: BaseModules, folder: Path) -> None:
    [line] = warnings(base, folder, "Qwen/Qwen3-8B", "a name")
    assert line["event"] == "adapter_names_another_base"
    assert line["log_level"] == "warning"
    assert (line["trained_on"], line["served"]) == (TRAINED_ON, "Qwen/Qwen3-8B")


def test_a_quantised_copy_of_the_served_base_is_not_logged(base: BaseModules, folder: Path) -> None:
    assert warnings(base, folder, "/models/base", "Qwen/Qwen3-4B") == []
