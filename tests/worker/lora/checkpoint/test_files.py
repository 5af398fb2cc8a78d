"""Reading safetensors files, and the cache of parsed texts."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from shared.errors import AdapterRejected
from worker.lora.checkpoint.json_file import MAX_CACHED_BYTES, MAX_CACHED_TEXTS, cached_by_text
from worker.lora.checkpoint.safetensors_header import read_header
from worker.lora.checkpoint.tensor_file import is_finite, read_tensors

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


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


def test_a_tensor_may_start_at_any_offset(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    header = (
        b'{"a": {"dtype": "F16", "shape": [1], "data_offsets": [0, 2]},'
        b' "b": {"dtype": "F32", "shape": [2], "data_offsets": [2, 10]}}'
    )
    values = torch.tensor([1.5, -2.0])
    content = len(header).to_bytes(8, "little") + header + b"\0\x3c" + values.numpy().tobytes()
    file.write_bytes(content)
    read = read_tensors(file, read_header(file))
    assert torch.equal(read["a"], torch.ones(1, dtype=torch.float16))
    assert torch.equal(read["b"], values)


def test_a_file_that_changes_after_its_header_was_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    save_file(tensors(), file)
    header = read_header(file)
    save_file({"other": torch.ones(3)}, file)
    with pytest.raises(AdapterRejected, match="was changed while it was read"):
        read_tensors(file, header)


def test_a_tensor_whose_size_does_not_match_its_shape_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    header = b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}'
    file.write_bytes(len(header).to_bytes(8, "little") + header + b"0000")
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


def test_an_equal_text_is_parsed_once_while_it_is_cached() -> None:
    parsed: list[bytes] = []

    @cached_by_text
    def parse(text: bytes) -> list[bytes]:
        parsed.append(text)
        return [text]

    assert parse(b"a") is parse(b"a")
    assert parsed == [b"a"]
    for number in range(MAX_CACHED_TEXTS):
        parse(str(number).encode())
    parse(b"a")
    assert parsed.count(b"a") == 2


def test_neither_large_texts_nor_errors_are_cached() -> None:
    parsed: list[bytes] = []

    @cached_by_text
    def parse(text: bytes) -> int:
        parsed.append(text)
        return int(text)

    large = b"1" + b" " * MAX_CACHED_BYTES
    assert parse(large) == parse(large) == 1
    for _ in range(2):
        with pytest.raises(ValueError, match="invalid literal"):
            parse(b"x")
    assert parsed == [large, large, b"x", b"x"]
