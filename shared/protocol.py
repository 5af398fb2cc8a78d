"""What crosses Redis: jobs, their events and their results, with one JSON codec.

The wire form is plain JSON, so that redis-cli shows it readably. Field names on the wire
equal the attribute names, except for `try_`, which is `try` there.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, NewType

import orjson

from shared.errors import ErrorCode, JobError, ProtocolMismatch

PROTOCOL_VERSION = 1

JobId = NewType("JobId", str)
"""128 random bits as 32 hex digits: unguessable."""
WorkerId = NewType("WorkerId", str)
"""`host:pid:boot-uuid`, never reused."""
ApiId = NewType("ApiId", str)
"""Names one API process, and with it its reply stream; never reused."""
AdapterVersion = NewType("AdapterVersion", str)
"""`name@digest12`: one exact set of weights. The base model has one as well."""


class Endpoint(StrEnum):
    """Which OpenAI endpoint a job came in through."""

    CHAT = "chat"
    """/v1/chat/completions: `messages` is set."""
    COMPLETIONS = "completions"
    """/v1/completions: `prompt` is set."""


class JobState(StrEnum):
    """Where a job is. All states after RUNNING are final."""

    QUEUED = "queued"
    """Waits in the queue of its adapter version."""
    RUNNING = "running"
    """Claimed by exactly one worker."""
    DONE = "done"
    """Answered in full."""
    FAILED = "failed"
    """Ended with an error, which the job carries."""
    CANCELLED = "cancelled"
    """Ended by its client."""
    EXPIRED = "expired"
    """Its deadline passed before it was claimed."""
    DEAD = "dead"
    """Killed its worker repeatedly while running alone; kept as a dead letter."""


class FinishReason(StrEnum):
    """Why a choice ended, in OpenAI's words."""

    STOP = "stop"
    """End-of-sequence token or stop string."""
    LENGTH = "length"
    """`max_tokens` or the model's context is used up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How tokens are drawn. A draw is a function of (seed, choice, position)."""

    seed: int
    """Always set: the API picks one if the client sends none, so that a moved job goes on alike."""
    temperature: float = 1.0
    """0 is greedy."""
    top_p: float = 1.0
    top_k: int = 0
    """0 keeps all tokens."""
    min_p: float = 0.0
    max_tokens: int | None = None
    """None: as many as the context holds."""
    stop: tuple[str, ...] = ()
    n: int = 1
    ignore_eos: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One request as it is stored in Redis: OpenAI's fields as sent, and what routes it."""

    id: JobId
    endpoint: Endpoint
    model: str
    """The name that the client sent, echoed in the response."""
    version: AdapterVersion
    """What runs it, resolved when the request was accepted."""
    sampling: SamplingParams
    created_s: int
    """Unix time."""
    deadline_ms: int
    """Milliseconds from enqueueing on."""
    cost: int
    """Estimated tokens, prompt and answers: what fairness charges and claims reserve."""
    reply_to: ApiId
    tenant: str = "default"
    priority: int = 0
    """Higher runs earlier; one step is worth 1,000 tokens of the fair tag."""
    messages: tuple[dict[str, Any], ...] | None = None
    """Chat only, as sent."""
    prompt: str | tuple[int, ...] | None = None
    """Completions only: text or token ids."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedJob:
    """A job that this worker owns until it finishes or releases it."""

    job: Job
    try_: int
    """Fencing token: counts claims of this job, from 1."""
    suspect: bool
    """Its last worker died holding it: it must run alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Token counts of one job, over all its choices."""

    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """The job is tokenised and fits: from here on it will stream."""

    job: JobId
    try_: int
    prompt_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """New tokens of one choice, and the text that they made visible."""

    job: JobId
    try_: int
    choice: int
    index: int
    """Position of `ids[0]` among the choice's output tokens."""
    ids: tuple[int, ...]
    text: str
    """May lag behind the ids: UTF-8 and possible stop strings are held back."""
    finish: FinishReason | None = None
    """Set on the choice's last event."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """The worker died or gave the job back; what was published up to here stays valid."""

    job: JobId
    try_: int
    """The try that ended; the next event carries a higher one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """The one final event of a job."""

    job: JobId
    try_: int
    state: JobState
    usage: Usage | None = None
    error: JobError | None = None


Event = Admitted | Tokens | Retry | End


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One finished answer."""

    text: str
    finish: FinishReason
    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What `res:<id>` keeps of a finished job."""

    job: JobId
    state: JobState
    choices: tuple[Choice, ...] = ()
    usage: Usage | None = None
    error: JobError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerInfo:
    """What a worker tells of itself with each beat, for operators and metrics."""

    model: str
    device: str
    dtype: str
    version: str
    """Lorikeet's version."""
    max_num_seqs: int
    num_running: int = 0
    num_waiting: int = 0
    kv_blocks: int = 0
    kv_blocks_free: int = 0
    adapter_bytes: int = 0
    """Adapter weights resident on the device."""
    tokens_total: int = 0
    """Output tokens since the worker's start."""
    counters: Mapping[str, int] = field(default_factory=dict)
    """Further totals since the start, by name (preemptions, steps, ...)."""


def encode_job(job: Job) -> bytes:
    """The job as JSON, with the protocol version."""
    return orjson.dumps({"v": PROTOCOL_VERSION, **asdict(job)})


def decode_job(raw: bytes | str) -> Job:
    """The job in `raw`.

    Raises:
        ProtocolMismatch: another protocol version wrote it.
    """
    wire = _checked(raw)
    sampling = wire.pop("sampling")
    sampling["stop"] = tuple(sampling["stop"])
    messages, prompt = wire.pop("messages"), wire.pop("prompt")
    return Job(
        **{**wire, "endpoint": Endpoint(wire["endpoint"])},
        sampling=SamplingParams(**sampling),
        messages=tuple(messages) if messages is not None else None,
        prompt=tuple(prompt) if isinstance(prompt, list) else prompt,
    )


def encode_events(events: Iterable[Event]) -> bytes:
    """One message: the events of one step for one API process."""
    wire = [_event_to_wire(event) for event in events]
    return orjson.dumps({"v": PROTOCOL_VERSION, "events": wire})


def decode_events(raw: bytes | str) -> list[Event]:
    """The events of one message, oldest first.

    Raises:
        ProtocolMismatch: another protocol version wrote it.
    """
    return [_event_from_wire(wire) for wire in _checked(raw)["events"]]


def encode_result(result: Result) -> bytes:
    """The finished job as JSON, with the protocol version."""
    return orjson.dumps({"v": PROTOCOL_VERSION, **asdict(result)})


def decode_result(raw: bytes | str) -> Result:
    """The finished job in `raw`.

    Raises:
        ProtocolMismatch: another protocol version wrote it.
    """
    wire = _checked(raw)
    return Result(
        job=wire["job"],
        state=JobState(wire["state"]),
        choices=tuple(
            Choice(text=c["text"], finish=FinishReason(c["finish"]), ids=tuple(c["ids"]))
            for c in wire["choices"]
        ),
        usage=_usage(wire["usage"]),
        error=_error(wire["error"]),
    )


def encode_worker_info(info: WorkerInfo) -> bytes:
    """The worker's description as JSON, with the protocol version."""
    return orjson.dumps({"v": PROTOCOL_VERSION, **asdict(info)})


def decode_worker_info(raw: bytes | str) -> WorkerInfo:
    """The worker's description in `raw`.

    Raises:
        ProtocolMismatch: another protocol version wrote it.
    """
    return WorkerInfo(**_checked(raw))


_TYPE_NAMES = {Admitted: "admitted", Tokens: "tokens", Retry: "retry", End: "end"}


def _event_to_wire(event: Event) -> dict[str, Any]:
    wire: dict[str, Any] = {"type": _TYPE_NAMES[type(event)], "job": event.job, "try": event.try_}
    match event:
        case Admitted():
            wire["prompt_tokens"] = event.prompt_tokens
        case Tokens():
            wire |= {"choice": event.choice, "index": event.index, "ids": event.ids}
            wire |= {"text": event.text, "finish": event.finish}
        case End():
            wire |= {"state": event.state, "usage": event.usage, "error": event.error}
        case Retry():
            pass
    return wire


def _event_from_wire(wire: dict[str, Any]) -> Event:
    job, try_ = JobId(wire["job"]), wire["try"]
    match wire["type"]:
        case "admitted":
            return Admitted(job=job, try_=try_, prompt_tokens=wire["prompt_tokens"])
        case "tokens":
            finish = wire["finish"]
            return Tokens(
                job=job,
                try_=try_,
                choice=wire["choice"],
                index=wire["index"],
                ids=tuple(wire["ids"]),
                text=wire["text"],
                finish=FinishReason(finish) if finish else None,
            )
        case "retry":
            return Retry(job=job, try_=try_)
        case "end":
            return End(
                job=job,
                try_=try_,
                state=JobState(wire["state"]),
                usage=_usage(wire.get("usage")),
                error=_error(wire.get("error")),
            )
        case other:
            raise ProtocolMismatch(f"unknown event type {other!r}")


def _usage(wire: dict[str, int] | None) -> Usage | None:
    return Usage(**wire) if wire else None


def _error(wire: dict[str, Any] | None) -> JobError | None:
    if not wire:
        return None
    return JobError(code=ErrorCode(wire["code"]), message=wire["message"], param=wire.get("param"))


def _checked(raw: bytes | str) -> dict[str, Any]:
    wire: dict[str, Any] = orjson.loads(raw)
    version = wire.pop("v", None)
    if version != PROTOCOL_VERSION:
        raise ProtocolMismatch(
            f"protocol version {version!r}, this process speaks {PROTOCOL_VERSION}"
        )
    return wire
