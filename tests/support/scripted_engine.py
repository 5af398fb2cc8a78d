"""Engine that tests stop, let fail, and script token by token.

Other tests of a whole worker use the simulated engine; see `simulated_workers`.
"""

import struct
import threading
import time
from collections.abc import Callable, Sequence

from tiny_tokenizers import byte_level_tokenizer

from shared.errors import AdapterRejected, ErrorCode, JobError
from shared.protocol.adapters import Adapter, BaseModel
from shared.protocol.ids import AdapterVersion
from shared.protocol.results import FinishReason
from shared.store.adapters.inspections import Findings, Inspection
from worker.adapters.memory_budgets import AdapterBudgets
from worker.adapters.source.interface import CheckedAdapter
from worker.engine.grammar import GrammarCompiler
from worker.engine.interface import LEAST_RECENTLY_USED, EngineStats, EvictionOrder, Placing
from worker.engine.request import Request, RequestId, StepOutput
from worker.engine_simulated.adapters import SimulatedAdapter, SimulatedHostMemory
from worker.served_model import AdapterSupply, BaseInfo, CpuShares, ServedModel
from worker.text.grammar_cache import GrammarCache
from worker.text.prompt_style import BASE_STYLE
from worker.text.tokenizer import Tokenizer

HF = byte_level_tokenizer()
EOS_ID: int = HF.eos_token_id
MAX_MODEL_LEN = 1000
BASE = BaseModel(
    name="scripted",
    version=AdapterVersion("scripted@000000000000"),
    max_model_len=MAX_MODEL_LEN,
    source="scripted",
    created_s=0,
)
STEP_TIMEOUT_S = 30.0
ENDLESS = 10**9
"""Value of `max_tokens` for a request that runs until it is aborted."""
FAILING_TOKEN = 7
"""The engine fails requests whose prompts begin with this token."""


def expected_id(seed: int, choice: int, position: int, version: AdapterVersion) -> int:
    """Return one token of an answer, a function of seed, choice, position and version."""
    ordinary = len(HF) - 2  # the first two are special
    salt = seed * 7919 + choice * 104729 + sum(version.encode())
    return 2 + (salt + position * position * 31) % ordinary


def expected_ids(seed: int, choice: int, count: int, version: AdapterVersion) -> list[int]:
    return [expected_id(seed, choice, position, version) for position in range(count)]


def expected_text(ids: Sequence[int]) -> str:
    text: str = HF.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return text


def scripted_embedding(prompt_ids: Sequence[int]) -> bytes:
    """Return the embedding of a prompt, whose values are the prompt's length and its last token."""
    return struct.pack("<2f", len(prompt_ids), prompt_ids[-1])


class ScriptedEngine:
    """Stands in for `Engine`; each step adds one token to every request."""

    def __init__(self, *, step_s: float = 0.0, max_adapters: int = 8) -> None:
        self.step_s = step_s
        self.max_adapters = max_adapters
        self.requests: dict[RequestId, Request] = {}
        self.adapters: list[AdapterVersion] = []
        self.placed: list[AdapterVersion] = []
        """Versions whose memory is reserved but that aren't resident yet."""
        self.num_room_questions = 0
        """Calls of `has_room`."""
        self.wrote_on: list[str] = []
        """Names of the threads that have written adapters."""
        self.fails_to_write = False
        self.added_ids: list[RequestId] = []
        """Every request that was added, in order."""
        self.scripted_ids: list[int] | None = None
        """Tokens of all answers, repeated as needed; None: the expected ids."""
        self.breaks_next_step = False
        self.num_failures_in_a_row = 0
        self.max_concurrent = 0
        """Most requests that took part in one step."""
        self.may_step = threading.Event()
        self.may_step.set()
        """Cleared by tests to stop the engine before its next step."""
        self._num_steps = 0

    @property
    def has_work(self) -> bool:
        return bool(self.requests)

    def add(self, request: Request) -> None:
        self.requests[request.id] = request
        self.added_ids.append(request.id)

    def abort(self, request_id: RequestId) -> None:
        self.requests.pop(request_id, None)

    def step(self) -> list[StepOutput]:
        time.sleep(self.step_s)
        self.may_step.wait(STEP_TIMEOUT_S)
        self._num_steps += 1
        self.max_concurrent = max(self.max_concurrent, len(self.requests))
        if self.breaks_next_step:
            self.breaks_next_step = False
            raise RuntimeError("scripted to break")
        return [self._advance(request) for request in list(self.requests.values())]

    def place(
        self,
        adapter: SimulatedAdapter,
        *,
        may_evict: bool = True,
        order: EvictionOrder = LEAST_RECENTLY_USED,
    ) -> Placing[SimulatedAdapter]:
        if self.max_adapters == 0:
            raise AdapterRejected("scripted to be too large")
        evicted = []
        in_use = {request.version for request in self.requests.values()}
        idle = [version for version in self.adapters if version not in in_use]
        idle.sort(key=lambda version: (version in order.last) - (version in order.first))
        if len(self.adapters) + len(self.placed) >= self.max_adapters and may_evict and idle:
            evicted = idle[:1]
            self.remove_adapter(idle[0])
        if len(self.adapters) + len(self.placed) >= self.max_adapters:
            return Placing(None, evicted)
        self.placed.append(adapter.version)
        return Placing(adapter, evicted)

    def has_room(self, num_bytes: int) -> bool:
        self.num_room_questions += 1
        in_use = {request.version for request in self.requests.values()}
        num_in_use = len(in_use.intersection(self.adapters))
        return num_in_use + len(self.placed) < self.max_adapters

    def write_adapter(self, reserved: SimulatedAdapter, _: SimulatedAdapter) -> None:
        self.wrote_on.append(threading.current_thread().name)
        if self.fails_to_write:
            raise RuntimeError("scripted to fail")

    def activate_adapter(self, reserved: SimulatedAdapter, _: SimulatedAdapter) -> None:
        self.placed.remove(reserved.version)
        self.adapters.append(reserved.version)

    def remove_adapter(self, version: AdapterVersion) -> None:
        (self.adapters if version in self.adapters else self.placed).remove(version)

    def stats(self) -> EngineStats:
        return EngineStats(
            num_running=len(self.requests),
            num_waiting=0,
            kv_blocks=100,
            kv_blocks_free=100,
            adapter_bytes=0,
            num_steps=self._num_steps,
            num_preemptions=0,
            num_cached_tokens=0,
            num_tokens=0,
        )

    def _advance(self, request: Request) -> StepOutput:
        if request.prompt_ids[0] == FAILING_TOKEN:
            return self._fail(request, "scripted to fail")
        if request.version is not None and request.version not in self.adapters:
            return self._fail(request, f"{request.version} isn't resident")
        if request.embedding:
            del self.requests[request.id]
            return StepOutput(
                request_id=request.id,
                embedding=scripted_embedding(request.prompt_ids),
                finish=FinishReason.STOP,
            )
        token = self._token(request)
        request.output_ids.append(token)
        finish = FinishReason.LENGTH if len(request.output_ids) >= request.max_tokens else None
        finish = FinishReason.STOP if token in request.stop_ids else finish
        if finish:
            del self.requests[request.id]
        return StepOutput(request_id=request.id, token_id=token, finish=finish)

    def _token(self, request: Request) -> int:
        position = len(request.output_ids)
        if self.scripted_ids is not None:
            return self.scripted_ids[position % len(self.scripted_ids)]
        version = request.version or BASE.version
        sampling = request.sampling
        return expected_id(sampling.seed, sampling.choice, position, version)

    def _fail(self, request: Request, message: str) -> StepOutput:
        del self.requests[request.id]
        return StepOutput(
            request_id=request.id, error=JobError(code=ErrorCode.INTERNAL, message=message)
        )


def read_scripted_adapter(name: str, source: str) -> SimulatedAdapter:
    """Return an adapter whose digest is its source; reject the source `broken`."""
    if source == "broken":
        raise AdapterRejected(f"adapter {name} from {source}: scripted to be rejected")
    return SimulatedAdapter(
        name=name,
        version=AdapterVersion(f"{name}@{source}"),
        digest=source,
        source=source,
        num_bytes=1024,
    )


def inspect_scripted_adapter(inspection: Inspection) -> Findings:
    """Return the findings that a front end receives for an adapter."""
    try:
        adapter = read_scripted_adapter(inspection.name, inspection.source)
    except AdapterRejected as error:
        code = ErrorCode.ADAPTER_REJECTED
        return Findings(error=JobError(code=code, message=str(error), param="lora_path"))
    return Findings(adapter=adapter.registry_entry(inspection.source))


class ScriptedSource:
    """`AdapterSource` of scripted adapters."""

    def __init__(self, read: Callable[[str, str], SimulatedAdapter]) -> None:
        self._read = read

    def read(self, name: str, source: str) -> CheckedAdapter[SimulatedAdapter]:
        return CheckedAdapter(self._read(name, source), BASE_STYLE)

    def read_version(self, entry: Adapter) -> CheckedAdapter[SimulatedAdapter]:
        return self.read(entry.name, entry.source)

    def inspect(self, inspection: Inspection) -> Findings:
        return inspect_scripted_adapter(inspection)


def scripted_model(
    engine: ScriptedEngine,
    read_adapter: Callable[[str, str], SimulatedAdapter] = read_scripted_adapter,
    host: SimulatedHostMemory | None = None,
    *,
    max_num_seqs: int = 64,
) -> ServedModel:
    return ServedModel(
        engine=engine,
        tokenizer=Tokenizer(HF, vocab_size=len(HF)),
        grammars=GrammarCache(GrammarCompiler(HF, vocab_size=len(HF), eos_ids={EOS_ID})),
        base=BASE,
        info=BaseInfo(
            eos_ids=frozenset({EOS_ID}),
            device="cpu",
            dtype="float32",
            kernels="scripted",
            num_fused=0,
            kv_tokens=100_000,
            kv_bytes=0,
            weight_bytes=0,
            max_num_seqs=max_num_seqs,
            max_num_batched_tokens=512,
        ),
        adapters=AdapterSupply(
            source=ScriptedSource(read_adapter),
            roots="",
            store=None,
            stager=None,
            host=host or SimulatedHostMemory(1 << 20),
            budgets=AdapterBudgets(device=1 << 20, host=1 << 20, is_one_memory=False),
        ),
        cpu=CpuShares(num_threads=1, take_cores=lambda: None, spare_cores=lambda: None),
    )
