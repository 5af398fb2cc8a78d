"""Operations, reads and uploads of a step are counted on a CPU as a device would see them."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from counted_engine import CASES, LAYERS, CountedEngine
from counted_operations import Counts, OperationCounter
from torch import Tensor

CPU = torch.device("cpu")


def counts_of(function: Callable[[Tensor], object]) -> Counts:
    tensor, counts = torch.ones(3, 4), Counts()
    with torch.inference_mode(), OperationCounter() as counter, counter.into(counts):
        function(tensor)
    return counts


READS: dict[str, Callable[[Tensor], object]] = {
    "item": lambda x: x[0, 0].item(),
    "float": lambda x: float(x.sum()),
    "if": lambda x: bool((x > 0).any()),
    "tolist": lambda x: x.tolist(),
    "cpu": lambda x: x.cpu(),
    "what was read is on the host": lambda x: x.cpu()[0].numpy().tolist(),
    "mask": lambda x: x[x > 0],
    "nonzero": lambda x: x.nonzero(),
}
UPLOADS: dict[str, Callable[[Tensor], object]] = {
    "values": lambda _: torch.tensor([1, 2], device=CPU),
    "array": lambda _: torch.from_numpy(np.ones(2)).to(CPU),
    "list as an index": lambda x: x[[0, 1]],
}
NEITHER: dict[str, Callable[[Tensor], object]] = {
    "view": lambda x: x[1:, None].expand(2, 3, 4),
    "dtype": lambda x: x.to(torch.float64),
    "already on the device": lambda x: x.to(CPU),
    "fill": lambda x: x.fill_(3.0),
}


@pytest.mark.parametrize("name", READS)
def test_a_read_is_counted_once(name: str) -> None:
    counts = counts_of(READS[name])
    assert (sum(counts.reads.values()), counts.uploads) == (1, {})


@pytest.mark.parametrize("name", UPLOADS)
def test_an_upload_is_counted_once(name: str) -> None:
    counts = counts_of(UPLOADS[name])
    assert (counts.reads, sum(counts.uploads.values())) == ({}, 1)


@pytest.mark.parametrize("name", NEITHER)
def test_what_stays_on_the_device_is_no_copy(name: str) -> None:
    counts = counts_of(NEITHER[name])
    assert (counts.reads, counts.uploads) == ({}, {})


def test_composite_functions_are_counted_by_their_operations() -> None:
    weight = torch.ones(4, 4)
    counts = counts_of(lambda x: torch.nn.functional.linear(x, weight).view(-1).double())
    assert set(counts.operations.values()) == {1}
    assert len(counts.operations) == 2


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
