"""Calls that ask a worker to convert between text and token ids.

Front ends have no tokenizer. A call isn't a job: it doesn't wait for jobs, any worker of the pool
may answer it, and the front end repeats a call that was lost.
"""

from dataclasses import asdict, dataclass
from typing import Any

import orjson

from shared.errors import JobError, ProtocolMismatch
from shared.protocol.codec import (
    PROTOCOL_VERSION,
    decode_job,
    decode_job_error,
    encode_job,
)
from shared.protocol.ids import CallId
from shared.protocol.jobs import Job
from shared.protocol.known_fields import Forms, known_fields


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodeText:
    """Asks for the tokens of a text."""

    text: str
    add_special_tokens: bool = True
    """Whether the tokenizer adds special tokens, such as the one that begins a text."""
    with_names: bool = False
    """Whether the reply has the names of the tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodeChat:
    """Asks for the tokens of a chat, rendered by the chat template of its model."""

    job: Job
    """A job with the messages. It isn't queued."""
    with_names: bool = False
    """Whether the reply has the names of the tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decode:
    """Asks for the text of tokens."""

    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Describe:
    """Asks for the special tokens and the chat template of the base model's tokenizer."""


Call = EncodeText | EncodeChat | Decode | Describe


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """Reply to a call. Only the fields that the call asks for are set."""

    ids: tuple[int, ...] = ()
    names: tuple[str, ...] | None = None
    text: str = ""
    description: dict[str, Any] | None = None
    error: JobError | None = None
    """Reason why the call can't be answered."""


_KINDS = {"text": EncodeText, "chat": EncodeChat, "decode": Decode, "describe": Describe}


def encode_call(call_id: CallId, call: Call) -> bytes:
    """Return a call with its id as JSON that includes the protocol version."""
    kind = next(name for name, cls in _KINDS.items() if isinstance(call, cls))
    if isinstance(call, EncodeChat):
        fields = {"job": encode_job(call.job).decode(), "with_names": call.with_names}
    else:
        fields = asdict(call)
    return orjson.dumps({"v": PROTOCOL_VERSION, "id": call_id, "kind": kind, **fields})


def decode_call(raw: bytes) -> tuple[CallId, Call]:
    """Return the id and the call that are encoded in `raw`.

    Raises:
        ProtocolMismatch: this release can't read the call.
    """
    wire = orjson.loads(raw)
    try:
        if wire.pop("v") != PROTOCOL_VERSION:
            raise ProtocolMismatch("the call has another protocol version")
        call_id, kind = CallId(wire.pop("id")), _KINDS[wire.pop("kind")]
        if kind is EncodeChat:
            wire["job"] = decode_job(wire["job"])
        if kind is Decode:
            wire["ids"] = tuple(wire["ids"])
        return call_id, kind(**wire)
    except (KeyError, TypeError, ValueError) as error:
        raise ProtocolMismatch(f"the call can't be read: {error!r}") from error


def encode_reply(reply: Reply) -> bytes:
    """Return a reply as JSON."""
    return orjson.dumps(asdict(reply))


def decode_reply(raw: bytes) -> Reply:
    """Return the reply that is encoded in `raw`."""
    forms: Forms = {"ids": tuple, "names": tuple, "error": decode_job_error}
    return Reply(**known_fields(Reply, orjson.loads(raw), **forms))
