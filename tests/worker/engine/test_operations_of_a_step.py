"""Operations, reads and uploads of a step, counted on a CPU as a device would see them."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from counted_engine import CASES, LAYERS, CountedEngine
from counted_operations import counted
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as of_numpy
from torch import Tensor

from worker.kernels.transfer import Array, Pending, read_all, to_device, to_host

CPU = torch.device("cpu")


COPIES: dict[str, tuple[Callable[[Tensor], object], int, int]] = {
    "item": (lambda x: x[0, 0].item(), 1, 0),
    "float": (lambda x: float(x.sum()), 1, 0),
    "if": (lambda x: bool((x > 0).any()), 1, 0),
    "tolist": (lambda x: x.tolist(), 1, 0),
    "cpu": (lambda x: x.cpu(), 1, 0),
    "what was read is on the host": (lambda x: x.cpu()[0].numpy().tolist(), 1, 0),
    "mask": (lambda x: x[x > 0], 1, 0),
    "nonzero": (lambda x: x.nonzero(), 1, 0),
    "values": (lambda _: torch.tensor([1, 2], device=CPU), 0, 1),
    "array": (lambda _: torch.from_numpy(np.ones(2)).to(CPU), 0, 1),
    "list as an index": (lambda x: x[[0, 1]], 0, 1),
    "view": (lambda x: x[1:, None].expand(2, 3, 4), 0, 0),
    "dtype": (lambda x: x.to(torch.float64), 0, 0),
    "already on the device": (lambda x: x.to(CPU), 0, 0),
    "fill": (lambda x: x.fill_(3.0), 0, 0),
}
"""Functions with their numbers of reads and of uploads."""


@pytest.mark.parametrize("name", COPIES)
def test_reads_and_uploads_are_counted_once_and_what_stays_on_the_device_is_neither(
    name: str,
) -> None:
    function, num_reads, num_uploads = COPIES[name]
    with counted() as counts:
        function(torch.ones(3, 4))
    assert (sum(counts.reads.values()), sum(counts.uploads.values())) == (num_reads, num_uploads)


def test_composite_functions_are_counted_by_their_operations() -> None:
    tensor, weight = torch.ones(3, 4), torch.ones(4, 4)
    with counted() as counts:
        torch.nn.functional.linear(tensor, weight).view(-1).double()
    assert list(counts.operations.values()) == [1, 1]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> CountedEngine:
    return CountedEngine(tmp_path_factory.mktemp("operations"), max_num_seqs=24)


@pytest.mark.parametrize("case", CASES)
def test_a_decode_step_reads_once_and_its_counts_do_not_depend_on_its_sequences(
    engine: CountedEngine, case: str
) -> None:
    few, many = engine.count(case, 8), engine.count(case, 24)
    assert (few.forward, few.rest) == (many.forward, many.rest)
    assert sum(many.rest.reads.values()) == 1
    assert (many.forward.reads, many.forward.uploads) == ({}, {})
    assert many.forward.operations["paged_attention"] == LAYERS


DTYPES = [np.uint8, np.int32, np.int64, np.float32, np.float64]
SHAPES = of_numpy.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=5)
ARRAYS = st.sampled_from(DTYPES).flatmap(lambda dtype: of_numpy.arrays(dtype, SHAPES))


@given(st.lists(ARRAYS, max_size=6))
def test_arrays_return_as_they_were(arrays: list[Array]) -> None:
    tensors = to_device(arrays, CPU)
    for array, tensor in zip(arrays, tensors, strict=True):
        assert torch.equal(tensor.isnan(), torch.from_numpy(array).isnan())
    for array, found in zip(arrays, to_host(tensors), strict=True):
        assert found.dtype == array.dtype
        np.testing.assert_array_equal(found, array)


def test_many_arrays_are_copied_at_once_and_non_contiguous_tensors_in_order() -> None:
    with counted() as counts:
        to_host(to_device([np.arange(3), np.zeros((2, 2), np.float32)], CPU))
    assert (counts.uploads, counts.reads) == ({"to": 1}, {"cpu": 1})
    matrix = torch.arange(6).view(2, 3)
    transposed, column = to_host([matrix.t(), matrix[:, 1]])
    assert transposed.tolist() == [[0, 3], [1, 4], [2, 5]]
    assert column.tolist() == [1, 4]


def test_pending_values_are_computed_from_what_was_read_together() -> None:
    doubled = Pending([torch.tensor([1, 2])], lambda arrays: arrays[0] * 2)
    summed = Pending([torch.tensor([3]), torch.tensor([4])], lambda arrays: int(sum(arrays)[0]))
    nothing = Pending([], lambda arrays: len(arrays))
    with counted() as counts:
        read_all(doubled, nothing, summed)
    assert doubled.value().tolist() == [2, 4]
    assert (summed.value(), nothing.value()) == (7, 0)
    assert counts.reads == {"cpu": 1}
