"""Requests and responses about candidate versions, pinned adapters and the audit log."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from api.schema.adapters import CandidateBody, Path
from shared.protocol.ids import AdapterVersion
from shared.store.adapters.share import CandidateMode

MAX_REPLICAS = 10_000


class SetCandidateRequest(BaseModel):
    """Body of PUT /v1/adapters/{name}/candidate."""

    model_config = ConfigDict(extra="forbid")

    mode: CandidateMode = Field(
        CandidateMode.CANARY,
        description="canary: the candidate answers a share of the requests. shadow: it computes "
        "copies of them while the pool has idle capacity, and clients get the current version's "
        "answers.",
    )
    percent: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] = Field(
        description="Share of the requests. Requests with the same `user` are on the same side."
    )
    source: Path | None = Field(
        None,
        description="Adapter that is loaded as the candidate. In place of an earlier candidate.",
    )
    version: AdapterVersion | None = Field(
        None,
        min_length=1,
        description="Previous version that becomes the candidate, as `name@digest`. Without it and "
        "`source`, the present candidate gets another share or mode.",
    )


class CandidateQuery(BaseModel):
    """Query of the requests that end a trial."""

    model_config = ConfigDict(extra="forbid", strict=True)

    version: AdapterVersion | None = Field(
        None, min_length=1, description="Version that must be the candidate, as `name@digest`."
    )


class Agreement(BaseModel):
    """How the answers of a shadow compare with those of the current version."""

    pairs: int = Field(description="Number of requests whose two answers were compared.")
    equal: int = Field(description="Number of pairs with equal texts.")
    failed: int = Field(description="Number of copies that ended with an error.")
    similarity: float | None = Field(
        description="Mean similarity of the two texts, from 0 to 1. null without pairs."
    )
    tokens: int = Field(description="Number of tokens of the current version's answers.")
    candidate_tokens: int = Field(description="Number of tokens of the candidate's answers.")


class DifferingPair(BaseModel):
    """A request whose two answers differ."""

    job: str = Field(description="Id of the request's job. Its tenant can read the answer.")
    copy_job: str = Field(description="Id of the copy's job.")
    similarity: float
    error: str | None = Field(description="Why the copy failed.")
    current_text: str | None = Field(
        description="Beginning of the current version's first answer, for keys that may see it, "
        "while the job is kept."
    )
    candidate_text: str | None = Field(description="Beginning of the candidate's first answer.")


class CandidateDetails(CandidateBody):
    """A candidate, and how its answers compare if it is a shadow."""

    object: Literal["adapter.candidate"] = "adapter.candidate"
    agreement: Agreement
    differing: list[DifferingPair] = Field(description="Newest pairs that differ, at most 20.")


class PinRequest(BaseModel):
    """Body of PUT /v1/adapters/{name}/pin."""

    model_config = ConfigDict(extra="forbid", strict=True)

    min_replicas: Annotated[int, Field(ge=1, le=MAX_REPLICAS)] = Field(
        1, description="Minimum number of workers that hold the current version in memory."
    )


class Pin(BaseModel):
    """Minimum number of workers that hold the current version of an adapter."""

    id: str
    object: Literal["adapter.pin"] = "adapter.pin"
    min_replicas: int = Field(description="0 if the adapter isn't pinned.")


class ChangeBody(BaseModel):
    """One change of an adapter or of an API key."""

    id: str
    object: Literal["change"] = "change"
    time_ms: int = Field(description="Unix time in milliseconds.")
    action: str = Field(
        description="loaded, unloaded, rolled_back, released, candidate_set, candidate_promoted, "
        "candidate_dropped, pinned, key_created or key_revoked."
    )
    adapter: str | None = Field(description="null for changes of API keys.")
    by: str | None = Field(
        description="Who asked for it: the tenant of an API key, with the key's id after a slash "
        "if it is stored; `.worker` for adapters of a worker's start, `.operator` for commands "
        "that use Redis, or `.pool`."
    )
    before: str | None = Field(description="Version or value before the change.", alias="from")
    after: str | None = Field(description="Version or value after the change.", alias="to")


class ChangeList(BaseModel):
    """One page of the audit log, newest change first."""

    object: Literal["list"] = "list"
    data: list[ChangeBody]
    last_id: str | None = Field(description="`after` of the next page; null for an empty page.")
    has_more: bool
