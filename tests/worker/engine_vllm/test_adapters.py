"""Checkpoints that vLLM loads: exact matrices, kept within a budget, deleted when unused."""

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from tiny import save_adapter, tiny_model

from shared.errors import AdapterNotServed
from shared.protocol.capabilities import Capabilities
from worker.engine_vllm.adapters import VllmHostMemory, slot_bytes
from worker.engine_vllm.skeleton import skeleton_modules
from worker.lora.base.modules import BaseModules, base_modules
from worker.lora.checkpoint.adapter import LoRAAdapter, read_checkpoint
from worker.lora.checkpoint.adapter_files import AdapterFiles

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
