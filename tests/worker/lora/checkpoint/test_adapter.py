"""Reading adapters: weights, scaling, versions, and sources on the hub."""

import shutil
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import pytest
import torch
from adapter_folders import change_tensors, read_adapter, set_field
from safetensors.torch import load_file, save_file
from tiny import save_adapter

from shared.errors import AdapterRejected
from worker.lora.base.modules import BaseModules
from worker.lora.checkpoint.adapter import read_checkpoint
from worker.lora.checkpoint.adapter_files import AdapterFiles

Q0 = "model.layers.0.self_attn.q_proj"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_adapter(tmp_path / "a", r=4, lora_alpha=10, target_modules=["q_proj", "v_proj"])


def test_an_adapter_has_its_name_rank_and_size(base: BaseModules, folder: Path) -> None:
    adapter = read_adapter(base, folder, "org/sql")
    assert adapter.version == f"org/sql@{adapter.digest[:12]}"
    assert len(adapter.digest) == len(adapter.weights_digest) == 64
    assert (adapter.rank, adapter.source, adapter.folder) == (4, str(folder), folder)
    # q: 4 x (64 + 64), v: 4 x (64 + 32), two layers, 4 bytes each
    assert adapter.num_bytes == 2 * 4 * (128 + 96) * 4


def test_weights_have_the_pools_dtype_and_b_contains_the_scaling(
    base: BaseModules, folder: Path
) -> None:
    stored = load_file(folder / "adapter_model.safetensors")
    weights = read_adapter(base, folder, dtype=torch.bfloat16).modules[Q0]
    assert weights.scaling == 2.5
    assert torch.equal(weights.a, stored[f"base_model.model.{Q0}.lora_A.weight"].bfloat16())
    b = (stored[f"base_model.model.{Q0}.lora_B.weight"] * 2.5).bfloat16()
    assert torch.equal(weights.b, b)


def test_tensor_names_may_contain_the_adapters_name(base: BaseModules, folder: Path) -> None:
    before = read_adapter(base, folder)
    file = folder / "adapter_model.safetensors"
    named = {n.replace(".weight", ".default.weight"): t for n, t in load_file(file).items()}
    save_file(named, file)
    assert read_adapter(base, folder).version == before.version


def write(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text("{}")


B0 = f"base_model.model.{Q0}.lora_B.weight"


@pytest.mark.parametrize(
    ("change", "is_other_version", "has_other_weights"),
    [
        (lambda folder: change_tensors(folder, lambda t: t[B0][0, 0].add_(1)), True, True),
        (lambda folder: set_field(folder, lora_alpha=11), True, True),
        (lambda folder: set_field(folder, lora_dropout=0.5), False, False),
        (write("README.md"), False, False),
        (write("chat_template.jinja"), True, False),
        (write("tokenizer_config.json"), True, False),
        (write("generation_config.json"), True, False),
    ],
)
def test_changes_with_effect_on_answers_make_another_version(
    base: BaseModules,
    folder: Path,
    change: Callable[[Path], object],
    is_other_version: bool,
    has_other_weights: bool,
) -> None:
    before = read_adapter(base, folder)
    change(folder)
    after = read_adapter(base, folder)
    assert (after.version != before.version) == is_other_version
    assert (after.weights_digest != before.weights_digest) == has_other_weights


def hub_cache(root: Path, folder: Path) -> Path:
    """Create a hub cache that holds `org/sql` and return the snapshot folder."""
    repo = root / "models--org--sql"
    snapshot = repo / "snapshots" / ("0" * 40)
    (repo / "blobs").mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("0" * 40)
    snapshot.mkdir(parents=True)
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copy(folder / file, repo / "blobs" / file)
        (snapshot / file).symlink_to(Path("../../blobs") / file)
    return snapshot


def test_a_hub_id_is_read_offline_through_the_links_of_the_cache(
    base: BaseModules, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub_cache(tmp_path / "hub", folder)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    adapter = read_checkpoint("sql", AdapterFiles.find("org/sql"), base, dtype=torch.float32)
    assert adapter.source == "org/sql"
    assert adapter.weights_digest == read_adapter(base, folder).weights_digest


def test_a_snapshot_folder_of_the_hubs_cache_can_be_a_source(
    base: BaseModules, folder: Path, tmp_path: Path
) -> None:
    snapshot = hub_cache(tmp_path / "hub", folder)
    assert read_adapter(base, snapshot).version == read_adapter(base, folder).version


def test_a_hub_id_that_cannot_be_downloaded_is_refused(
    base: BaseModules, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(AdapterRejected, match=r"'org/sql' isn't a folder .* hub failed"):
        AdapterFiles.find("org/sql")
