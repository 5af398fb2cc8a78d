"""Engine with predictable tokens, for tests of a real worker.

As a program this module runs such a worker:

    scripted_engine.py '{"redis_url": ..., "pool": ...}' STEP_S [FILE [SALT]]

A step that finds FILE deletes it and hangs forever. Engines with different salts sample different
tokens, so an answer that mixes the tokens of two workers is detected.
"""

import sys
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import orjson
import structlog
from tiny_tokenizers import byte_level_tokenizer

from shared.errors import AdapterRejected, ErrorCode, JobError
from shared.protocol.adapters import Adapter, BaseModel
from shared.protocol.ids import AdapterVersion
from shared.protocol.results import FinishReason
from shared.settings import WorkerSettings
from shared.store.inspections import Findings, Inspection
from worker.adapters.memory_budgets import AdapterBudgets
from worker.adapters.source.checked_adapter import CheckedAdapter
from worker.engine.grammar import GrammarCompiler
from worker.engine.request import Request, RequestId, StepOutput
from worker.process import run_with
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
    """Return the first `count` tokens of an answer."""
    return [expected_id(seed, choice, position, version) for position in range(count)]


def expected_text(ids: Sequence[int]) -> str:
    """Return the text of an answer's tokens."""
    text: str = HF.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return text


@dataclass(frozen=True, kw_only=True)
class ScriptedStats:
    """Stands in for `EngineStats`, whose module takes seconds to import."""

    num_running: int
    num_steps: int
    num_waiting: int = 0
    kv_blocks: int = 100
    kv_blocks_free: int = 100
    adapter_bytes: int = 0
    num_preemptions: int = 0
    num_cached_tokens: int = 0
    num_tokens: int = 0


@dataclass(frozen=True, kw_only=True)
class ScriptedAdapter:
    """Stands in for `LoRAAdapter`, without weights. Its fields are those of its registry entry."""

    name: str
    version: AdapterVersion
    digest: str
    weights_digest: str
    source: str
    rank: int = 8
    num_bytes: int = 1024

    def named(self, name: str) -> "ScriptedAdapter":
        return replace(self, name=name, version=AdapterVersion(f"{name}@{self.source}"))

    def registry_entry(self, source: str) -> Adapter:
        return Adapter(**{**asdict(self), "source": source}, created_s=int(time.time()))


@dataclass(frozen=True)
class ScriptedPlacing:
    """Stands in for the engine's `Placing`; the reservation is the adapter itself."""

    reserved: ScriptedAdapter | None
    evicted: list[AdapterVersion]


class ScriptedHost:
    """Stands in for `HostTier`, with room for `max_bytes`; a copy is the adapter itself."""

    def __init__(self, max_bytes: int = 1 << 20) -> None:
        self.max_bytes = max_bytes
        self.copies: dict[AdapterVersion, ScriptedAdapter] = {}

    @property
    def num_bytes(self) -> int:
        return sum(adapter.num_bytes for adapter in self.copies.values())

    def __contains__(self, version: AdapterVersion) -> bool:
        return version in self.copies

    def image(self, adapter: ScriptedAdapter) -> ScriptedAdapter:
        return adapter

    def has_room(self, num_bytes: int) -> bool:
        return self.num_bytes + num_bytes <= self.max_bytes

    def put(self, adapter: ScriptedAdapter, *, may_evict: bool = True) -> ScriptedAdapter:
        if self.num_bytes + adapter.num_bytes <= self.max_bytes:
            self.copies[adapter.version] = adapter
        return adapter

    def take(self, version: AdapterVersion) -> ScriptedAdapter | None:
        return self.copies.get(version)

    def release(self, adapter: ScriptedAdapter) -> None:
        pass

    def touch(self, version: AdapterVersion) -> None:
        pass

    def drop(self, version: AdapterVersion) -> None:
        self.copies.pop(version, None)


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
        self.hang_file: Path | None = None
        self.salt = 0
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
        self._hang_if_requested()
        self._num_steps += 1
        self.max_concurrent = max(self.max_concurrent, len(self.requests))
        if self.breaks_next_step:
            self.breaks_next_step = False
            raise RuntimeError("scripted to break")
        return [self._advance(request) for request in list(self.requests.values())]

    def _hang_if_requested(self) -> None:
        if self.hang_file is None:
            return
        try:
            self.hang_file.unlink()
        except FileNotFoundError:
            return
        threading.Event().wait()

    def place(
        self,
        adapter: ScriptedAdapter,
        *,
        may_evict: bool = True,
        surplus: Collection[AdapterVersion] = (),
    ) -> ScriptedPlacing:
        if self.max_adapters == 0:
            raise AdapterRejected("scripted to be too large")
        evicted = []
        in_use = {request.version for request in self.requests.values()}
        idle = [version for version in self.adapters if version not in in_use]
        idle.sort(key=lambda version: version not in surplus)
        if len(self.adapters) + len(self.placed) >= self.max_adapters and may_evict and idle:
            evicted = idle[:1]
            self.remove_adapter(idle[0])
        if len(self.adapters) + len(self.placed) >= self.max_adapters:
            return ScriptedPlacing(None, evicted)
        self.placed.append(adapter.version)
        return ScriptedPlacing(adapter, evicted)

    def has_room(self, num_bytes: int) -> bool:
        self.num_room_questions += 1
        in_use = {request.version for request in self.requests.values()}
        num_in_use = len(in_use.intersection(self.adapters))
        return num_in_use + len(self.placed) < self.max_adapters

    def write_adapter(self, reserved: ScriptedAdapter, _: ScriptedAdapter) -> None:
        self.wrote_on.append(threading.current_thread().name)
        if self.fails_to_write:
            raise RuntimeError("scripted to fail")

    def activate_adapter(self, reserved: ScriptedAdapter, _: ScriptedAdapter) -> None:
        self.placed.remove(reserved.version)
        self.adapters.append(reserved.version)

    def remove_adapter(self, version: AdapterVersion) -> None:
        (self.adapters if version in self.adapters else self.placed).remove(version)

    def stats(self) -> ScriptedStats:
        return ScriptedStats(num_running=len(self.requests), num_steps=self._num_steps)

    def _advance(self, request: Request) -> StepOutput:
        if request.prompt_ids[0] == FAILING_TOKEN:
            return self._fail(request, "scripted to fail")
        if request.version is not None and request.version not in self.adapters:
            return self._fail(request, f"{request.version} isn't resident")
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
        return expected_id(sampling.seed + self.salt, sampling.choice, position, version)

    def _fail(self, request: Request, message: str) -> StepOutput:
        del self.requests[request.id]
        return StepOutput(
            request_id=request.id, error=JobError(code=ErrorCode.INTERNAL, message=message)
        )


def read_scripted_adapter(name: str, source: str) -> ScriptedAdapter:
    """Return an adapter whose digest is its source; reject the source `broken`."""
    if source == "broken":
        raise AdapterRejected(f"adapter {name} from {source}: scripted to be rejected")
    return ScriptedAdapter(
        name=name,
        version=AdapterVersion(f"{name}@{source}"),
        digest=source,
        weights_digest=source,
        source=source,
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

    def __init__(self, read: Callable[[str, str], ScriptedAdapter]) -> None:
        self._read = read

    def read(self, name: str, source: str) -> CheckedAdapter:
        return CheckedAdapter(self._read(name, source), BASE_STYLE)  # type: ignore[arg-type]

    def read_version(self, entry: Adapter) -> CheckedAdapter:
        return self.read(entry.name, entry.source)

    def inspect(self, inspection: Inspection) -> Findings:
        return inspect_scripted_adapter(inspection)


def scripted_model(
    engine: ScriptedEngine,
    read_adapter: Callable[[str, str], ScriptedAdapter] = read_scripted_adapter,
    host: ScriptedHost | None = None,
) -> ServedModel:
    return ServedModel(
        engine=engine,  # type: ignore[arg-type]  # has all that the worker uses
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
        ),
        adapters=AdapterSupply(
            source=ScriptedSource(read_adapter),
            roots="",
            store=None,
            host=host or ScriptedHost(),  # type: ignore[arg-type]
            budgets=AdapterBudgets(device=1 << 20, host=1 << 20, is_one_memory=False),
        ),
        cpu=CpuShares(num_threads=1, take_cores=lambda: None, spare_cores=lambda: None),
    )


def main() -> None:
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    settings = WorkerSettings(**orjson.loads(sys.argv[1]))
    engine = ScriptedEngine(step_s=float(sys.argv[2]))
    engine.hang_file = Path(sys.argv[3]) if len(sys.argv) > 3 else None
    engine.salt = int(sys.argv[4]) if len(sys.argv) > 4 else 0
    run_with(settings, lambda _: scripted_model(engine))


if __name__ == "__main__":
    main()
