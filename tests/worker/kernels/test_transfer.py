"""Arrays keep their content, shape and dtype on the way to a device and back."""

import numpy as np
import torch
from counted_operations import counted
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as of_numpy

from worker.kernels.transfer import Array, Pending, read_all, to_device, to_host

DTYPES = [np.uint8, np.int32, np.int64, np.float32, np.float64]
SHAPES = of_numpy.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=5)
ARRAYS = st.sampled_from(DTYPES).flatmap(lambda dtype: of_numpy.arrays(dtype, SHAPES))
CPU = torch.device("cpu")


@given(st.lists(ARRAYS, max_size=6))
def test_arrays_return_as_they_were(arrays: list[Array]) -> None:
    tensors = to_device(arrays, CPU)
    for array, tensor in zip(arrays, tensors, strict=True):
        assert torch.equal(tensor.isnan(), torch.from_numpy(array).isnan())
    for array, found in zip(arrays, to_host(tensors), strict=True):
        assert found.dtype == array.dtype
        np.testing.assert_array_equal(found, array)


def test_many_arrays_are_copied_at_once() -> None:
    with counted() as counts:
        to_host(to_device([np.arange(3), np.zeros((2, 2), np.float32)], CPU))
    assert (counts.uploads, counts.reads) == ({"to": 1}, {"cpu": 1})


def test_pending_values_are_computed_from_what_was_read_together() -> None:
    doubled = Pending([torch.tensor([1, 2])], lambda arrays: arrays[0] * 2)
    summed = Pending([torch.tensor([3]), torch.tensor([4])], lambda arrays: int(sum(arrays)[0]))
    nothing = Pending([], lambda arrays: len(arrays))
    with counted() as counts:
        read_all(doubled, nothing, summed)
    assert doubled.value().tolist() == [2, 4]
    assert (summed.value(), nothing.value()) == (7, 0)
    assert counts.reads == {"cpu": 1}


def test_non_contiguous_tensors_are_read_in_order() -> None:
    matrix = torch.arange(6).view(2, 3)
    transposed, column = to_host([matrix.t(), matrix[:, 1]])
    assert transposed.tolist() == [[0, 3], [1, 4], [2, 5]]
    assert column.tolist() == [1, 4]
