"""Reading adapters: weights, scaling, versions, and sources on the hub."""

import shutil
from pathlib import Path

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import save_adapter, tiny_model

from shared.errors import AdapterRejected
from worker.lora.base.modules import BaseModules, base_modules
from worker.lora.checkpoint.adapter import LoRAAdapter, read_checkpoint
from worker.lora.checkpoint.adapter_files import AdapterFiles

Q0 = "model.layers.0.self_attn.q_proj"


@pytest.fixture(scope="module")
def base() -> BaseModules:
    return base_modules(tiny_model("llama"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_adapter(tmp_path / "a", r=4, lora_alpha=10, target_modules=["q_proj", "v_proj"])


def read(base: BaseModules, folder: Path, name: str = "a") -> LoRAAdapter:
    return read_checkpoint(name, AdapterFiles(folder), base, dtype=torch.float32)


def test_an_adapter_has_its_name_rank_and_size(base: BaseModules, folder: Path) -> None:
    adapter = read(base, folder, "org/sql")
    assert adapter.version == f"org/sql@{adapter.digest[:12]}"
    assert len(adapter.digest) == len(adapter.weights_digest) == 64
    assert (adapter.rank, adapter.source, adapter.folder) == (4, str(folder), folder)
    # q: 4 x (64 + 64), v: 4 x (64 + 32), two layers, 4 bytes each
    assert adapter.num_bytes == 2 * 4 * (128 + 96) * 4


def test_weights_have_the_pools_dtype_and_b_contains_the_scaling(
    base: BaseModules, folder: Path
) -> None:
    stored = load_file(folder / "adapter_model.safetensors")
    weights = read_checkpoint("a", AdapterFiles(folder), base, dtype=torch.bfloat16).modules[Q0]
    assert weights.scaling == 2.5
    assert torch.equal(weights.a, stored[f"base_model.model.{Q0}.lora_A.weight"].bfloat16())
    b = (stored[f"base_model.model.{Q0}.lora_B.weight"] * 2.5).bfloat16()
    assert torch.equal(weights.b, b)


@pytest.mark.parametrize(
    ("config", "rank", "scaling"),
    [
        ({"r": 16, "lora_alpha": 8}, 16, 0.5),
        ({"r": 16, "lora_alpha": 8, "use_rslora": True}, 16, 2.0),
        ({"r": 4, "lora_alpha": 8, "rank_pattern": {"q_proj": 2}}, 2, 4.0),
        ({"r": 4, "lora_alpha": 8, "alpha_pattern": {"q_proj": 2}}, 4, 0.5),
        ({"r": 4, "rank_pattern": {"^model.layers.0.self_attn.q_proj": 2}}, 2, 4.0),
        ({"r": 4, "alpha_pattern": {r"layers\.\d.*q_proj": 16}}, 4, 4.0),
        (
            {
                "r": 4,
                "use_rslora": True,
                "rank_pattern": {"q_proj": 9},
                "alpha_pattern": {"q_proj": 6},
            },
            9,
            2.0,
        ),
    ],
    ids=str,
)
def test_rank_and_scaling_follow_peft(
    base: BaseModules, tmp_path: Path, config: dict[str, object], rank: int, scaling: float
) -> None:
    folder = save_adapter(tmp_path / "a", target_modules=["q_proj", "v_proj"], **config)
    weights = read(base, folder).modules[Q0]
    assert weights.a.shape == (rank, 64)
    assert weights.scaling == scaling


def test_a_pattern_matches_from_a_dot_to_the_end_of_a_name(base: BaseModules, folder: Path) -> None:
    file = folder / "adapter_config.json"
    pattern = '"alpha_pattern": {"proj": 40, "layers.0": 40, "self_attn.q_proj": 20}'
    file.write_text(file.read_text().replace('"alpha_pattern": {}', pattern))
    scalings = {name[-6:]: w.scaling for name, w in read(base, folder).modules.items()}
    assert scalings == {"q_proj": 5.0, "v_proj": 2.5}


def test_tensor_names_may_contain_the_adapters_name(base: BaseModules, folder: Path) -> None:
    before = read(base, folder)
    file = folder / "adapter_model.safetensors"
    named = {n.replace(".weight", ".default.weight"): t for n, t in load_file(file).items()}
    save_file(named, file)
    assert read(base, folder).version == before.version


def test_new_weights_under_the_same_name_are_another_version(
    base: BaseModules, folder: Path
) -> None:
    before = read(base, folder)
    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    tensors[f"base_model.model.{Q0}.lora_B.weight"][0, 0] += 1
    save_file(tensors, file)
    after = read(base, folder)
    assert after.version != before.version
    assert after.weights_digest != before.weights_digest


def test_another_scaling_is_another_version(base: BaseModules, folder: Path) -> None:
    before = read(base, folder)
    file = folder / "adapter_config.json"
    file.write_text(file.read_text().replace('"lora_alpha": 10', '"lora_alpha": 11'))
    assert read(base, folder).weights_digest != before.weights_digest


def test_changes_without_effect_on_answers_keep_the_version(
    base: BaseModules, folder: Path, tmp_path: Path
) -> None:
    before = read(base, folder)
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    (copy / "README.md").write_text("notes")
    file = copy / "adapter_config.json"
    file.write_text(file.read_text().replace('"lora_dropout": 0.0', '"lora_dropout": 0.5'))
    assert read(base, copy).version == before.version


@pytest.mark.parametrize(
    "name", ["chat_template.jinja", "tokenizer_config.json", "generation_config.json"]
)
def test_a_file_that_shapes_prompts_changes_the_version_but_not_the_weights(
    base: BaseModules, folder: Path, name: str
) -> None:
    before = read(base, folder)
    (folder / name).write_text("{}")
    first = read(base, folder)
    (folder / name).write_text("{ }")
    second = read(base, folder)
    assert len({before.version, first.version, second.version}) == 3
    assert before.weights_digest == first.weights_digest == second.weights_digest


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
    assert adapter.weights_digest == read(base, folder).weights_digest


def test_a_snapshot_folder_of_the_hubs_cache_can_be_a_source(
    base: BaseModules, folder: Path, tmp_path: Path
) -> None:
    snapshot = hub_cache(tmp_path / "hub", folder)
    assert read(base, snapshot).version == read(base, folder).version


def test_a_hub_id_that_cannot_be_downloaded_is_refused(
    base: BaseModules, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(AdapterRejected, match=r"'org/sql' isn't a folder .* hub failed"):
        AdapterFiles.find("org/sql")
