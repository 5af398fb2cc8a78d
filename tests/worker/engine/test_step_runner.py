"""Steps that run out of memory are computed in parts, with the same tokens."""

from collections.abc import Callable, Sequence
from struct import iter_unpack

import pytest
import torch
from engines import all_outputs_of, engine_of, greedy_request, load, outputs_of, random_prompt
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import save_adapter, tiny_model

from shared.errors import ErrorCode
from shared.protocol.embeddings import EmbeddingParams, Pooling
from shared.protocol.ids import AdapterVersion
from worker.engine.engine import NativeEngine
from worker.engine.model_runner import Computed, Sample, StepRunner
from worker.engine.pace import PASSES_UNTIL_GROWTH
from worker.engine.request import ChoiceSampling, Request, StepOutput
from worker.engine.rules import STEP_FAILED
from worker.engine.scheduler import Chunk, split

CPU = torch.device("cpu")


def too_little_memory() -> Exception:
    return torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


class Passes:
    """A runner that runs out of memory above a number of tokens."""

    has_states = False

    def __init__(self, most: int, error: Callable[[], Exception] = too_little_memory) -> None:
        self.most = most
        self.error = error
        self.sizes: list[int] = []
        """Number of tokens of each pass, those that failed included."""

    def run(self, chunks: Sequence[Chunk]) -> list[Computed]:
        num_tokens = sum(chunk.num_tokens for chunk in chunks)
        self.sizes.append(num_tokens)
        if num_tokens > self.most:
            raise self.error()
        return [Computed(chunk, (Sample(7),) * chunk.num_samples) for chunk in chunks]


def request(name: str, num_prompt: int = 5) -> Request:
    return greedy_request(name, list(range(num_prompt)), 100)


def chunk(name: str, start: int, num_tokens: int, *, samples: bool = True) -> Chunk:
    return Chunk(request(name, start + num_tokens), start, num_tokens, samples)


def described(chunks: Sequence[Chunk]) -> list[tuple[str, int, int, bool]]:
    return [(c.request.id, c.start, c.num_tokens, c.samples) for c in chunks]


@given(
    lengths=st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9), st.booleans()), max_size=6),
    max_tokens=st.integers(1, 60),
)
def test_the_parts_of_a_step_have_all_its_tokens_and_samples_in_order(
    lengths: list[tuple[int, int, bool]], max_tokens: int
) -> None:
    chunks = [chunk(str(i), a, n, samples=s) for i, (a, n, s) in enumerate(lengths)]
    first, rest = split(chunks, max_tokens)
    assert sum(c.num_tokens for c in first) == min(max_tokens, sum(c.num_tokens for c in chunks))
    positions = [(c.request.id, p) for c in first + rest for p in range(c.start, c.end)]
    assert positions == [(c.request.id, p) for c in chunks for p in range(c.start, c.end)]
    sampled = [(c.request.id, c.end) for c in first + rest if c.samples]
    assert sampled == [(c.request.id, c.end) for c in chunks if c.samples]
    assert all(c.num_tokens > 0 for c in first + rest)


def test_a_pass_without_enough_memory_is_halved_until_it_fits() -> None:
    passes = Passes(3)
    runner = StepRunner(passes, CPU, max_tokens=100)
    result = runner.run([chunk("a", 4, 1), chunk("b", 0, 9)])
    assert passes.sizes == [10, 5, 2, 2, 2, 2, 2]
    assert runner.num_out_of_memory == 2
    assert result.failed == []
    assert described([c.chunk for c in result.computed]) == [
        ("a", 4, 1, True),
        *(("b", start, num, False) for start, num in ((0, 1), (1, 2), (3, 2), (5, 2))),
        ("b", 7, 2, True),
    ]


def test_later_passes_keep_the_size_that_fits_and_grow_again() -> None:
    passes = Passes(4)
    runner = StepRunner(passes, CPU, max_tokens=8)
    for _ in range(PASSES_UNTIL_GROWTH // 2):
        runner.run([chunk("a", 0, 8)])
    assert set(passes.sizes[1:]) == {4}
    passes.most, passes.sizes = 100, []
    runner.run([chunk("a", 0, 8)])
    assert passes.sizes == [8]
    runner.run([chunk("a", 0, 8)] * 2)
    assert passes.sizes[1:] == [8, 8]


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."),
        RuntimeError("Triton Error [CUDA]: out of memory"),
        MemoryError(),
    ],
)
def test_allocators_of_cpus_and_triton_lead_to_retries_too(error: Exception) -> None:
    runner = StepRunner(Passes(3, lambda: error), CPU, max_tokens=8)
    assert runner.run([chunk("a", 0, 8)]).failed == []
    assert runner.num_out_of_memory == 2


def test_one_token_without_memory_ends_its_request_and_another_error_those_of_its_pass() -> None:
    broken = chunk("broken", 0, 3)

    class Broken(Passes):
        def run(self, chunks: Sequence[Chunk]) -> list[Computed]:
            self.most = 0 if broken.request in [c.request for c in chunks] else 100
            return super().run(chunks)

    result = StepRunner(Broken(0), CPU, max_tokens=8).run([chunk("a", 0, 2), broken])
    ((request, error),) = result.failed
    assert (request, error.code) == (broken.request, ErrorCode.UNAVAILABLE)
    assert [c.chunk.request.id for c in result.computed if c.samples] == ["a"]
    passes = Passes(3, lambda: RuntimeError("device-side assert"))
    result = StepRunner(passes, CPU, max_tokens=8).run([chunk("a", 0, 2), chunk("b", 0, 2)])
    assert [(r.id, error) for r, error in result.failed] == [(i, STEP_FAILED) for i in "ab"]
    assert len(passes.sizes) == 1, "there is no retry"


class Flaky:
    """Computes like an engine's own runner, but runs out of memory above a number of tokens.

    Every second failure follows the computation, as if the sampler had failed.
    """

    has_states = False

    def __init__(self, engine: NativeEngine, most: int) -> None:
        self._runner = engine._runner
        self._most = most
        self._num_failures = 0

    def run(self, chunks: Sequence[Chunk]) -> list[Computed]:
        if sum(chunk.num_tokens for chunk in chunks) <= self._most:
            return self._runner.run(chunks)
        self._num_failures += 1
        if self._num_failures % 2:
            self._runner.run(chunks)
        raise too_little_memory()


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> tuple[NativeEngine, AdapterVersion]:
    folder = save_adapter(tmp_path_factory.mktemp("adapter") / "a", seed=1, r=4)
    engine, versions = engine_of(
        load(tiny_model()), {"a": folder}, num_blocks=14, caches_prefixes=False
    )
    return engine, versions["a"]


def requests(lengths: Sequence[int], version: AdapterVersion) -> list[Request]:
    """Return requests of all kinds: greedy, sampled, with scored prompts, and for embeddings."""
    made = [
        greedy_request(str(i), random_prompt(i, length), 6, version if i % 3 else None)
        for i, length in enumerate(lengths)
    ]
    for i, one in enumerate(made):
        if i % 4 == 1:
            one.sampling = ChoiceSampling(seed=i, temperature=1.5, top_p=0.9, logprobs=3)
        elif i % 4 == 2:
            one.sampling = ChoiceSampling(seed=i, presence_penalty=1.0, prompt_logprobs=2)
            one.scores_prompt = True
        elif i % 4 == 3:
            one.embedding = EmbeddingParams(pooling=Pooling.MEAN)
    return made


def described_outputs(outputs: Sequence[StepOutput]) -> list[object]:
    """Return tokens, ends and errors, and numbers rounded to what batch sizes don't change."""
    return [
        (
            *(output.token_id, output.finish, output.error),
            output.logprobs and round(output.logprobs.logprob, 2),
            [round(prompt.logprob, 2) for prompt in output.prompt_logprobs or ()],
            [round(value, 3) + 0.0 for (value,) in iter_unpack("<f", output.embedding or b"")],
        )
        for output in outputs
    ]


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=7),
    most=st.integers(1, 40),
)
def test_requests_get_the_same_outputs_when_steps_run_out_of_memory(
    engine: tuple[NativeEngine, AdapterVersion], lengths: list[int], most: int
) -> None:
    native, version = engine
    native._steps = StepRunner(native._runner, CPU, max_tokens=512)
    expected = all_outputs_of(native, requests(lengths, version))
    assert not any(output.error for outputs in expected.values() for output in outputs)
    native._steps = StepRunner(Flaky(native, most), CPU, max_tokens=512)
    got = all_outputs_of(native, requests(lengths, version))
    assert {name: described_outputs(outputs) for name, outputs in got.items()} == {
        name: described_outputs(outputs) for name, outputs in expected.items()
    }
    assert native.stats().kv_blocks_free == native.stats().kv_blocks
    assert native.num_failures_in_a_row == 0


def test_an_engine_without_memory_for_one_token_fails_its_requests_and_stays_usable(
    engine: tuple[NativeEngine, AdapterVersion],
) -> None:
    native, version = engine
    native._steps = StepRunner(Passes(0), CPU, max_tokens=512)
    for one in requests([3, 4], version):
        native.add(one)
    errors = [output.error for output in native.step()]
    assert [error and error.code for error in errors] == [ErrorCode.UNAVAILABLE] * 2
    assert native.num_failures_in_a_row == 1
    assert native.stats().num_out_of_memory == native._steps.num_out_of_memory > 0
    assert not native.has_work
    native._steps = StepRunner(native._runner, CPU, max_tokens=512)
    assert len(outputs_of(native, requests([3], version))["0"]) == 6
    assert native.num_failures_in_a_row == 0
