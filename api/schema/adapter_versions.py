"""Requests and responses about candidate versions and pinned adapters."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from api.schema.adapters import CandidateBody, Path
from api.schema.base import Body, StrictBody
from shared.protocol.ids import AdapterVersion
from shared.store.adapters.candidates import CandidateMode

MAX_REPLICAS = 10_000


class SetCandidateRequest(Body):
    """Body of PUT /v1/adapters/{name}/candidate."""

    model_config = ConfigDict(extra="forbid")

    mode: CandidateMode = CandidateMode.CANARY
    """canary: the candidate answers a share of the requests. shadow: it computes copies of them
    while the pool has idle capacity, and clients get the current version's answers."""
    percent: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
    """Share of the requests. Requests with the same `user` get the same version."""
    source: Path | None = None
    """Adapter that is loaded as the candidate. It replaces an earlier candidate."""
    version: AdapterVersion | None = Field(None, min_length=1)
    """Previous version that becomes the candidate, as `name@digest`. Without `version` and
    `source`, the current candidate gets another share or mode."""


class CandidateQuery(StrictBody):
    """Query of the requests that end a trial."""

    version: AdapterVersion | None = Field(None, min_length=1)
    """Version that must be the current candidate, as `name@digest`. If it isn't, the request
    fails."""


class Agreement(Body):
    """Comparison of a shadow's answers with the current version's answers.

    A shadow is a candidate that only gets copies of requests.
    """

    pairs: int = Field(description="Number of requests whose two answers were compared.")
    equal: int = Field(description="Number of pairs with equal texts.")
    failed: int = Field(description="Number of copies that ended with an error.")
    similarity: float | None
    """Mean similarity of the two texts of a pair, from 0 to 1. null if there are no pairs."""
    tokens: int = Field(description="Number of tokens of the current version's answers.")
    candidate_tokens: int = Field(description="Number of tokens of the candidate's answers.")


class DifferingPair(Body):
    """A request whose two answers differ."""

    job: str = Field(description="Id of the request's job. Its tenant can read the answer.")
    copy_job: str = Field(description="Id of the copy's job.")
    similarity: float
    error: str | None = Field(description="Why the copy failed.")
    current_text: str | None
    """Beginning of the current version's first answer. Only keys that may see it get it, and only
    while the job is kept."""
    candidate_text: str | None = Field(description="Beginning of the candidate's first answer.")


class ComparedUsage(Body):
    """Usage of a version since the candidate was set.

    If the version has become the current one later, the usage since then.
    """

    version: str
    requests: int = Field(description="Number of ended requests.")
    tokens: int = Field(description="Prompt tokens plus output tokens.")
    failed: int = Field(description="Number of requests that ended with an error.")
    mean_answer_s: float | None
    """Mean time of a request on its worker, from the claim to the last token. null before the first
    answer."""


class CandidateDetails(CandidateBody):
    """A candidate. For a shadow, also how its answers compare with those of the current version."""

    object: Literal["adapter.candidate"] = "adapter.candidate"
    compared: list[ComparedUsage]
    """Usage of the candidate and of the current version, in this order, over the same period."""
    agreement: Agreement
    differing: list[DifferingPair] = Field(description="Newest pairs that differ, at most 20.")


class PinRequest(StrictBody):
    """Body of PUT /v1/adapters/{name}/pin."""

    min_replicas: Annotated[int, Field(ge=1, le=MAX_REPLICAS)] = 1
    """Minimum number of workers that hold the current version in memory."""


class Pin(Body):
    """Minimum number of workers that hold the current version of an adapter."""

    id: str
    object: Literal["adapter.pin"] = "adapter.pin"
    min_replicas: int = Field(description="0 if the adapter isn't pinned.")
