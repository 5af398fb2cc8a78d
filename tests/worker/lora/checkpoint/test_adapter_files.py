"""An adapter's files are located, read and parsed once per load."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import save_adapter

from shared import python_json
from shared.errors import AdapterRejected
from worker.lora.base.modules import BaseModules
from worker.lora.checkpoint import adapter_files
from worker.lora.checkpoint.adapter import read_checkpoint
from worker.lora.checkpoint.adapter_files import AdapterFiles
from worker.lora.checkpoint.header_report import check_size, report_headers

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count resolutions of sources, reads of headers, opened files by name, and JSON parses."""
    counter: Counter[str] = Counter()

    def counted(key: Callable[..., str], function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            counter[key(*args)] += 1
            return function(*args, **kwargs)

        return wrapper

    for name in ("adapter_folder", "read_header", "read_config"):
        function = getattr(adapter_files, name)
        monkeypatch.setattr(adapter_files, name, counted(lambda *_, n=name: n, function))
    monkeypatch.setattr(Path, "open", counted(lambda path, *_: path.name, Path.open))
    monkeypatch.setattr(
        python_json, "loads", counted(lambda *_: "python_json.loads", python_json.loads)
    )
    return counter


def use(source: str, base: BaseModules) -> str | None:
    """Check, read and report the adapter at `source`; return the error, if any."""
    files, error = AdapterFiles.find(source), None
    try:
        check_size(files, dtype=torch.float32, max_bytes=1 << 20)
        read_checkpoint("a", files, base, dtype=torch.float32)
    except AdapterRejected as rejected:
        error = str(rejected)
    report_headers(files, base)
    return error


def test_a_valid_adapter_is_read_once(
    base: BaseModules, tmp_path: Path, counts: Counter[str]
) -> None:
    folder = save_adapter(tmp_path / "a", r=13, target_modules=["q_proj"])
    counts.clear()
    assert use(str(folder), base) is None
    assert counts == {
        "adapter_folder": 1,
        "read_config": 1,
        "read_header": 1,
        CONFIG: 1,
        WEIGHTS: 2,  # once for the header, once for the tensors
        "python_json.loads": 2,  # the configuration and the header
    }


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
