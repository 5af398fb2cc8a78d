"""Reading safetensors files, matrices stacked from them, the cache of parsed texts, and buffers."""

import json
import random
from collections.abc import Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from lora import check, empty_pool, small_base
from safetensors.torch import load_file, save_file

from shared.errors import AdapterRejected
from worker.lora.checkpoint.adapter import Digests, LoRAAdapter, read_checkpoint
from worker.lora.checkpoint.adapter_files import AdapterFiles
from worker.lora.checkpoint.json_file import MAX_CACHED_BYTES, MAX_CACHED_TEXTS, cached_by_text
from worker.lora.checkpoint.safetensors_header import read_header
from worker.lora.checkpoint.tensor_file import common_distance, is_finite, read_tensors
from worker.lora.scratch_buffer import MAX_IDLE_BUFFER_BYTES, MAX_IDLE_BUFFERS, scratch

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def write_file(file: Path, header: dict[str, Any], content: bytes) -> Path:
    """Write a safetensors file."""
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + content)
    return file


def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {str(d): torch.randn(3, 5, generator=generator).to(d) for d in DTYPES} | {
        "one": torch.ones(()),
        "long": torch.arange(100_000.0),
    }


def test_every_dtype_and_shape_is_read_unchanged(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    save_file(tensors(), file)
    read = read_tensors(file, read_header(file))
    assert read.keys() == tensors().keys()
    for name, tensor in tensors().items():
        assert read[name].dtype is tensor.dtype
        assert torch.equal(read[name], tensor)


def test_a_file_that_changes_after_its_header_was_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    save_file(tensors(), file)
    header = read_header(file)
    save_file({"other": torch.ones(3)}, file)
    with pytest.raises(AdapterRejected, match="was changed while it was read"):
        read_tensors(file, header)


def test_a_tensor_may_start_at_any_offset_but_its_size_must_match_its_shape(tmp_path: Path) -> None:
    header = {
        "a": {"dtype": "F16", "shape": [1], "data_offsets": [0, 2]},
        "b": {"dtype": "F32", "shape": [2], "data_offsets": [2, 10]},
    }
    values = torch.tensor([1.5, -2.0])
    file = write_file(tmp_path / "a", header, b"\0\x3c" + values.numpy().tobytes())
    read = read_tensors(file, read_header(file))
    assert torch.equal(read["a"], torch.ones(1, dtype=torch.float16))
    assert torch.equal(read["b"], values)
    header = {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}
    file = write_file(tmp_path / "b", header, b"0000")
    with pytest.raises(AdapterRejected, match="can't be read: tensor 'a' has 4 bytes"):
        read_tensors(file, read_header(file))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_one_value_that_is_not_finite_is_found_at_any_position(
    dtype: torch.dtype, bad: float
) -> None:
    for position in (0, 1, 63, 64, 999):
        tensor = torch.randn(1000).to(dtype)
        assert is_finite(tensor)
        tensor[position] = bad
        assert not is_finite(tensor)


def test_an_equal_text_is_parsed_once_while_it_is_cached_and_large_ones_and_errors_are_not() -> (
    None
):
    parsed: list[bytes] = []

    @cached_by_text
    def parse(text: bytes) -> list[int]:
        parsed.append(text)
        return [int(text)]

    assert parse(b"1") is parse(b"1")
    large = b"2" + b" " * MAX_CACHED_BYTES
    assert parse(large) == parse(large) == [2]
    for _ in range(2):
        with pytest.raises(ValueError, match="invalid literal"):
            parse(b"x")
    assert parsed == [b"1", large, large, b"x", b"x"]
    for number in range(3, MAX_CACHED_TEXTS + 3):
        parse(str(number).encode())
    parse(b"1")
    assert parsed.count(b"1") == 2


LAYERS = 12
BASE = small_base(LAYERS)
ALPHAS = (4, 8, 10)
"""Values of alpha for rank 4, which multiply B by 1, by 2 (exact) and by 2.5."""


def save(folder: Path, names: Sequence[str], tensors: dict[str, torch.Tensor], alpha: int) -> Path:
    """Save an adapter whose file has the tensors in the order of `names`."""
    folder.mkdir()
    targets = {name.removeprefix("base_model.model.").rpartition(".lora_")[0] for name in names}
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 4, "lora_alpha": alpha}
    config["target_modules"] = sorted(targets)
    (folder / "adapter_config.json").write_text(json.dumps(config))
    ends = [0, *accumulate(tensors[name].nbytes for name in names)]
    header = {
        name: {"dtype": "F32", "shape": [*tensors[name].shape], "data_offsets": offsets}
        for name, offsets in zip(names, pairwise(ends), strict=True)
    }
    content = b"".join(tensors[name].numpy().tobytes() for name in names)
    write_file(folder / "adapter_model.safetensors", header, content)
    return folder


def tensors_of(modules: Sequence[str], rank: int = 4) -> dict[str, torch.Tensor]:
    generator, made = torch.Generator().manual_seed(0), {}
    for module in modules:
        shape = BASE.linears[module]
        sizes = {"A": (rank, shape.in_features), "B": (shape.out_features, rank)}
        for part, size in sizes.items():
            name = f"base_model.model.{module}.lora_{part}.weight"
            made[name] = torch.randn(size, generator=generator)
    return made


def read(folder: Path, dtype: torch.dtype = torch.float32) -> LoRAAdapter:
    return read_checkpoint("a", AdapterFiles(folder), BASE, dtype=dtype)


def shuffled(names: list[str]) -> list[str]:
    random.Random(3).shuffle(names)
    return names


ORDERS = {
    "PEFT's order": sorted,
    "reversed": lambda n: sorted(n, reverse=True),
    "shuffled": shuffled,
}
LINEARS = {
    "all": list(BASE.linears),
    "some layers": [f"layers.{layer}.q" for layer in (1, 2, 5, 7, 9, 11)],
    "one": ["layers.3.up"],
}


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("linears", LINEARS)
def test_every_linear_gets_its_own_matrices_for_any_order_of_tensors(
    tmp_path: Path, linears: str, order: str, alpha: int
) -> None:
    modules = LINEARS[linears]
    tensors = tensors_of(modules)
    folder = save(tmp_path / "a", ORDERS[order](list(tensors)), tensors, alpha)
    adapter = read(folder)
    assert set(adapter.modules) == set(modules)
    for module in modules:
        a, b = (tensors[f"base_model.model.{module}.lora_{part}.weight"] for part in "AB")
        assert torch.equal(adapter.modules[module].a, a)
        assert torch.equal(adapter.modules[module].b, b * (alpha / 4))
    pool = empty_pool(BASE)
    assert pool.add(adapter)
    check(pool, adapter)


def test_matrices_in_pefts_order_are_stacked_over_many_linears(tmp_path: Path) -> None:
    tensors = tensors_of(list(BASE.linears))
    adapter = read(save(tmp_path / "a", sorted(tensors), tensors, 8))
    assert len(adapter.modules) == 2 * LAYERS + 1
    assert len(adapter.modules.stacks) <= 1 + 2 * 4, "layers 0 and 1, 2 and 3, 4 to 9, 10 and 11"


def test_tensors_with_a_constant_distance_are_stacked_as_a_view(tmp_path: Path) -> None:
    tensors = tensors_of(LINEARS["some layers"])
    file = save(tmp_path / "a", list(tensors), tensors, 8) / "adapter_model.safetensors"
    header = read_header(file)
    names = [name for name in tensors if "lora_A" in name]
    tensors_in_file = read_tensors(file, header)
    stacked = tensors_in_file.stacked(names)
    assert torch.equal(stacked, torch.stack([load_file(file)[name] for name in names]))
    assert stacked.data_ptr() == tensors_in_file[names[0]].data_ptr()
    uneven = [names[0], names[1], names[3]]
    assert common_distance([header.tensors[name] for name in uneven]) is None
    assert torch.equal(tensors_in_file.stacked(uneven), stacked[[0, 1, 3]])


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_files_that_were_checked_before_are_read_with_the_same_values(
    tmp_path: Path, dtype: torch.dtype, alpha: int
) -> None:
    tensors = tensors_of(list(BASE.linears))
    folder = save(tmp_path / "a", sorted(tensors), tensors, alpha)
    whole = read(folder, dtype)
    digests = Digests(whole.digest, whole.weights_digest)
    again = read_checkpoint("a", AdapterFiles(folder), BASE, dtype=dtype, checked=digests)
    for module, weights in whole.modules.items():
        assert torch.equal(weights.a, again.modules[module].a)
        assert torch.equal(weights.b, again.modules[module].b)
    pool = empty_pool(BASE, dtype=dtype)
    assert pool.add(again)
    check(pool, whole)


MIB = 1 << 20


def test_memory_is_returned_to_the_system_when_nothing_refers_to_it() -> None:
    process = psutil.Process()
    before = process.memory_info().rss
    part = torch.frombuffer(scratch(64 * MIB), dtype=torch.float32).fill_(1.0)[5:]
    assert process.memory_info().rss > before + 50 * MIB
    del part
    assert process.memory_info().rss < before + 10 * MIB


def test_memory_is_not_reused_while_a_view_refers_to_it() -> None:
    part = torch.frombuffer(scratch(4 * MIB), dtype=torch.uint8)[MIB:][:1000]
    part[:] = 7
    others = [scratch(4 * MIB) for _ in range(4)]
    for other in others:
        other[:] = 1
    assert part.eq(7).all()


def test_a_new_buffer_reuses_idle_memory() -> None:
    first = scratch(3 * MIB)
    place = first.ctypes.data
    del first
    assert scratch(2 * MIB).ctypes.data == place


def test_only_a_few_idle_buffers_of_bounded_size_are_kept() -> None:
    process = psutil.Process()
    sizes = [MAX_IDLE_BUFFER_BYTES] * 8
    held = [scratch(size) for size in sizes]
    for data in held:
        data[:] = 1
    with_all = process.memory_info().rss
    del held, data
    freed = with_all - process.memory_info().rss
    assert freed > (len(sizes) - MAX_IDLE_BUFFERS) * MAX_IDLE_BUFFER_BYTES - 10 * MIB
