"""Encodes jobs, events, results and worker descriptions as JSON, and decodes them.

Field names on the wire equal the attribute names, except that `try_` is written as `try`.

During an upgrade, processes of two releases share one Redis, and each release decodes messages of
the other. This leads to three rules:

- A new field needs a default for older messages that lack it. Unknown fields are dropped.
- A default never changes within a protocol version, because jobs and specifications of answers
  contain only the fields that differ from their defaults.
- A change that older processes would misread needs a new protocol version. One release learns to
  read the new version, and only the next release writes it.

The Lua scripts also write messages: events and results of jobs that they end (`common.lua`).
"""

from collections.abc import Iterable
from dataclasses import fields
from typing import Any

import orjson

from shared.errors import ErrorCode, JobError, ProtocolMismatch
from shared.protocol.answers import AnswerSpec
from shared.protocol.capabilities import decode_capabilities, encode_capabilities
from shared.protocol.embeddings import EmbeddingParams, Pooling
from shared.protocol.events import Admitted, End, Event, Retry, Tokens
from shared.protocol.ids import JobId
from shared.protocol.jobs import (
    Endpoint,
    Job,
    JobState,
    Prompt,
    PromptEnd,
    SamplingParams,
    View,
)
from shared.protocol.known_fields import Forms, known_fields
from shared.protocol.logprobs import PositionLogprobs, TokenLogprob
from shared.protocol.results import Choice, FinishReason, Result, Usage
from shared.protocol.scoring import ScoreKind, ScoringParams
from shared.protocol.tools import ToolChoice, ToolForm, ToolUse
from shared.protocol.workers import WorkerInfo
from shared.reasoning_form import ReasoningForm

PROTOCOL_VERSION = 1
"""Version of the messages that this release writes."""
ONLY_IN_SPEC = (
    *("include_usage", "service_tier", "encodes_base64"),
    *("returns_token_ids", "continuous_usage"),
    *("reasoning", "hides_reasoning", "echoed"),
    *("view", "request"),
)
"""Fields that aren't encoded in jobs, because only the specification needs them."""
UNSENT_IN_SPEC = ("id", "request")
"""Fields that aren't encoded in specifications."""
READABLE = range(PROTOCOL_VERSION - 1, PROTOCOL_VERSION + 1)
"""Protocol versions that this release reads: its own and the previous one."""


def encode_job(job: Job) -> bytes:
    """Return the job as JSON that includes the protocol version."""
    wire = {name: value for name, value in _set_values(job).items() if name not in ONLY_IN_SPEC}
    return orjson.dumps({"v": PROTOCOL_VERSION, **wire, "sampling": _set_values(job.sampling)})


def decode_job(raw: bytes | str) -> Job:
    """Return the job that is encoded in `raw`.

    Raises:
        ProtocolMismatch: the job has a protocol version that this release can't read.
    """
    known = known_fields(
        Job,
        _checked(raw),
        endpoint=Endpoint,
        sampling=_sampling,
        messages=tuple,
        images=tuple,
        prompts=_prompts,
        tools=_tool_use,
        embedding=_embedding,
        scoring=_scoring,
        prompt_end=PromptEnd,
    )
    return Job(**known)


def encode_answer_spec(spec: AnswerSpec) -> bytes:
    """Return the specification of an answer as JSON that includes the protocol version.

    The JSON leaves out two fields: the job's id, because readers already know it, and `request`,
    because `encode_request` encodes it.
    """
    wire = {name: value for name, value in _set_values(spec).items() if name not in UNSENT_IN_SPEC}
    return orjson.dumps({"v": PROTOCOL_VERSION, **wire})


def encode_request(spec: AnswerSpec) -> bytes:
    """Return `request` of a specification as JSON, or an empty string if it is None."""
    return b"" if spec.request is None else orjson.dumps(spec.request)


def decode_answer_spec(
    raw: bytes | str, job_id: JobId, *, request: bytes | None = None
) -> AnswerSpec:
    """Return the specification of a job's answer that is encoded in `raw`.

    `request` is the result of `encode_request`, or None if the caller doesn't need the request.

    Raises:
        ProtocolMismatch: `raw` has a protocol version that this release can't read.
    """
    wire = _checked(raw) | {"id": job_id, "request": orjson.loads(request or b"null")}
    forms: Forms = {"endpoint": Endpoint, "reasoning": ReasoningForm, "view": _view}
    return AnswerSpec(**known_fields(AnswerSpec, wire, tools=_tool_use, **forms))


def encode_events(events: Iterable[Event]) -> bytes:
    """Encode events for one front end as a single message."""
    wire = [_event_to_wire(event) for event in events]
    return orjson.dumps({"v": PROTOCOL_VERSION, "events": wire})


def decode_events(raw: bytes | str) -> list[Event]:
    """Return the events of one message, oldest first.

    Raises:
        ProtocolMismatch: the message has a protocol version that this release can't read.
    """
    return [_event_from_wire(wire) for wire in _checked(raw)["events"]]


def encode_result(result: Result) -> bytes:
    """Return the result of a job as JSON that includes the protocol version."""
    wire = {"v": PROTOCOL_VERSION, **_values(result)}
    return orjson.dumps(wire | {"choices": [_choice_to_wire(choice) for choice in result.choices]})


def decode_result(raw: bytes | str) -> Result:
    """Return the result that is encoded in `raw`.

    Raises:
        ProtocolMismatch: the result has a protocol version that this release can't read.
    """
    known = known_fields(
        Result,
        _checked(raw),
        state=JobState,
        choices=lambda choices: tuple(map(_choice, choices)),
        usage=_usage,
        error=decode_job_error,
    )
    return Result(**known)


def encode_worker_info(info: WorkerInfo) -> bytes:
    """Return a worker's description as JSON that includes the protocol version."""
    serves = encode_capabilities(info.serves)
    return orjson.dumps({"v": PROTOCOL_VERSION, **_values(info), "serves": serves})


def decode_worker_info(raw: bytes | str) -> WorkerInfo:
    """Return the worker description that is encoded in `raw`.

    Raises:
        ProtocolMismatch: the description has a protocol version that this release can't read.
    """
    forms: Forms = {"serves": decode_capabilities, "first_tokens": tuple, "host_adapters": tuple}
    return WorkerInfo(**known_fields(WorkerInfo, _checked(raw), **forms))


def decode_job_error(wire: dict[str, Any] | None) -> JobError | None:
    """Return the error in a decoded JSON object, or None if the object is empty or None."""
    if not wire:
        return None
    return JobError(code=ErrorCode(wire["code"]), message=wire["message"], param=wire.get("param"))


def _values(message: Any) -> dict[str, Any]:
    """Return the values of a dataclass's fields. Values that are dataclasses stay as they are."""
    return {field.name: getattr(message, field.name) for field in fields(message)}


def _set_values(message: Job | SamplingParams | AnswerSpec) -> dict[str, Any]:
    """Return the values of the fields whose values differ from their defaults."""
    defaults = {field.name: field.default for field in fields(message)}
    return {name: value for name, value in _values(message).items() if value != defaults[name]}


_TYPE_NAMES = {Admitted: "admitted", Tokens: "tokens", Retry: "retry", End: "end"}


def _event_to_wire(event: Event) -> dict[str, Any]:
    wire: dict[str, Any] = {"type": _TYPE_NAMES[type(event)], "job": event.job, "try": event.try_}
    match event:
        case Admitted():
            wire["prompt_tokens"] = event.prompt_tokens
        case Tokens():
            wire |= {"choice": event.choice, "index": event.index, "ids": event.ids}
            wire |= {"text": event.text, "finish": event.finish}
            wire |= _details_to_wire(event)
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
                stop=wire.get("stop"),
                **_scores(wire),
            )
        case "retry":
            return Retry(job=job, try_=try_)
        case "end":
            return End(
                job=job,
                try_=try_,
                state=JobState(wire["state"]),
                usage=_usage(wire.get("usage")),
                error=decode_job_error(wire.get("error")),
            )
        case other:
            raise ProtocolMismatch(f"unknown event type {other!r}")


def _view(name: str) -> View:
    """Return the view with this name, or OPENAI if only a newer release knows the view."""
    return View(name) if name in set(View) else View.OPENAI


def _sampling(wire: dict[str, Any]) -> SamplingParams:
    forms: Forms = {name: tuple for name, value in wire.items() if isinstance(value, list)}
    forms["logit_bias"] = lambda pairs: tuple(map(tuple, pairs))
    return SamplingParams(**known_fields(SamplingParams, wire, **forms))


def _tool_use(wire: dict[str, Any]) -> ToolUse:
    return ToolUse(**known_fields(ToolUse, wire, form=ToolForm, choice=ToolChoice, tools=tuple))


def _embedding(wire: dict[str, Any]) -> EmbeddingParams:
    return EmbeddingParams(**known_fields(EmbeddingParams, wire, pooling=Pooling))


def _scoring(wire: dict[str, Any]) -> ScoringParams:
    forms: Forms = {"kind": ScoreKind, "fields": tuple, "firsts": _prompts, "label_ids": tuple}
    return ScoringParams(**known_fields(ScoringParams, wire, **forms))


def _prompts(wire: Iterable[str | list[int]]) -> tuple[Prompt, ...]:
    return tuple(prompt if isinstance(prompt, str) else tuple(prompt) for prompt in wire)


def _choice(wire: dict[str, Any]) -> Choice:
    return Choice(**known_fields(Choice, wire | _scores(wire), finish=FinishReason, ids=tuple))


_LOGPROBS = ("logprobs", "prompt_logprobs")


def _choice_to_wire(choice: Choice) -> dict[str, Any]:
    wire = {"text": choice.text, "finish": choice.finish, "ids": choice.ids}
    return wire | _details_to_wire(choice)


def _details_to_wire(source: Tokens | Choice) -> dict[str, Any]:
    """Encode the optional fields: stop, prompt ids, prompt scores and logprobs.

    Each position of logprobs becomes a list [offset, chosen, *top].

    A stop is missing only if it is None, because a stop token may have the id 0.
    """
    stop = {} if source.stop is None else {"stop": source.stop}
    prompt = {"prompt_ids": source.prompt_ids, "prompt_scores": source.prompt_scores}
    return (
        stop
        | {name: value for name, value in prompt.items() if value}
        | {
            name: [
                [p.offset, *([t.token, t.logprob, t.bytes] for t in (p.chosen, *p.top))]
                for p in getattr(source, name)
            ]
            for name in _LOGPROBS
            if getattr(source, name)
        }
    )


def _scores(wire: dict[str, Any]) -> dict[str, Any]:
    prompt = {
        "prompt_ids": tuple(wire.get("prompt_ids", ())),
        "prompt_scores": wire.get("prompt_scores", ""),
    }
    return prompt | {
        name: tuple(
            PositionLogprobs(
                offset=offset, chosen=_token_logprob(chosen), top=tuple(map(_token_logprob, top))
            )
            for offset, chosen, *top in wire.get(name, ())
        )
        for name in _LOGPROBS
    }


def _token_logprob(wire: tuple[str, float | None, Iterable[int] | None]) -> TokenLogprob:
    token, logprob, raw = wire
    # Lua's cjson writes an empty list as {}, which `tuple` accepts, too.
    return TokenLogprob(token=token, logprob=logprob, bytes=None if raw is None else tuple(raw))


def _usage(wire: dict[str, int] | None) -> Usage | None:
    return Usage(**known_fields(Usage, wire)) if wire else None


def _checked(raw: bytes | str) -> dict[str, Any]:
    wire: dict[str, Any] = orjson.loads(raw)
    version = wire.pop("v", None)
    if version not in READABLE:
        raise ProtocolMismatch(
            f"the message has protocol version {version!r}, but this process reads only "
            f"{READABLE.start} to {PROTOCOL_VERSION}; upgrade the older processes"
        )
    return wire
