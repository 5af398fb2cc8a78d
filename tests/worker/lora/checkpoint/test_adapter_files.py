"""Files of an adapter that are missing, or change after they were read."""

from pathlib import Path

import pytest
import torch
from adapter_folders import CONFIG, WEIGHTS
from tiny import save_adapter

from shared.errors import AdapterRejected
from worker.lora.base.modules import BaseModules
from worker.lora.checkpoint.adapter import read_checkpoint
from worker.lora.checkpoint.adapter_files import AdapterFiles


def test_a_missing_file_raises_the_same_error_each_time(tmp_path: Path) -> None:
    files = AdapterFiles(tmp_path)
    for _ in range(2):
        with pytest.raises(AdapterRejected, match=f"{WEIGHTS} is missing"):
            _ = files.header
    assert files.base_model_name is None


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS, "chat_template.jinja"])
def test_files_that_are_written_or_added_have_changed(tmp_path: Path, name: str) -> None:
    files = AdapterFiles(save_adapter(tmp_path / "a", target_modules=["q_proj"]))
    assert not files.have_changed()
    (files.folder / name).write_bytes(b"other")
    assert files.have_changed()


def test_errors_name_the_source_and_not_the_folder_it_was_resolved_to(
    base: BaseModules, tmp_path: Path
) -> None:
    files = AdapterFiles(tmp_path, "org/sql")
    with pytest.raises(AdapterRejected, match=r"adapter a from org/sql: .* is missing"):
        read_checkpoint("a", files, base, dtype=torch.float32)
