"""Requests and responses of /v1/score and /v1/rerank."""

from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator, StringConstraints, WithJsonSchema

from api.schema.base import USER, WEIGHT_VERSION, Body, JobRequest, Off
from api.schema.completions import PROMPT, as_prompts
from api.schema.embeddings import MAX_INPUTS
from api.schema.generation import MAX_LOGPROB_TOKENS, TokenIds
from api.schema.usage import UsageBody

MAX_INSTRUCTION_CHARS = 10_000
_TEXT = {
    "anyOf": [
        {"type": "string"},
        {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]},
    ]
}
_TEXTS = {"type": "array", "items": _TEXT, "minItems": 1, "maxItems": MAX_INPUTS}


def as_texts(value: Any) -> list[str]:
    """Return one or more texts as a list. A text is a string or an object with a `text`.

    Raises:
        ValueError: a text has another type, or there are none or too many.
    """
    texts = value if isinstance(value, list) else [value]
    if not 0 < len(texts) <= MAX_INPUTS:
        raise ValueError(f"must have 1 to {MAX_INPUTS} texts, not {len(texts)}")
    return [_as_text(text) for text in texts]


def _as_text(value: Any) -> str:
    text = value.get("text") if isinstance(value, dict) else value
    if not isinstance(text, str):
        raise ValueError("each text must be a string, or an object with a string text")
    return text


def as_items(value: Any) -> list[str | list[int]]:
    """Return one or more prompts as a list, each a string or a list of token ids.

    Raises:
        ValueError: a prompt is empty or has another type, or there are too many.
    """
    items = as_prompts(value)
    if len(items) > MAX_INPUTS:
        raise ValueError(f"can have at most {MAX_INPUTS} items, not {len(items)}")
    return items


def _as_query(value: Any) -> str | list[int]:
    queries = as_prompts(value)
    if isinstance(value, list) and not isinstance(value[0], int):
        raise ValueError("must be a string or a list of token ids")
    return queries[0]


Texts = Annotated[
    list[str], PlainValidator(as_texts), WithJsonSchema({"anyOf": [*_TEXT["anyOf"], _TEXTS]})
]
"""One or more texts."""
Items = Annotated[
    list[str | list[int]],
    PlainValidator(as_items),
    WithJsonSchema({"anyOf": [*PROMPT, {"type": "array", "items": {"anyOf": PROMPT}}]}),
]
"""One or more prompts, as text or as token ids."""
Query = Annotated[str | list[int], PlainValidator(_as_query), WithJsonSchema({"anyOf": PROMPT})]
Instruction = Annotated[str, StringConstraints(max_length=MAX_INSTRUCTION_CHARS)]


class ScoringRequest(JobRequest):
    """Fields that requests to /v1/score and /v1/rerank share."""

    instruction: Instruction | None = None
    """What a document must do for a query to be relevant. Defaults to answering a web search."""
    max_tokens_per_doc: Annotated[int, Field(ge=0)] | None = None
    """Uses only this number of tokens at the start of each document. 0, the default, uses all."""
    stream: Off | None = Field(None, description="Scores aren't streamed.")
    user: str | None = Field(None, description=USER)


class ScoreRequest(ScoringRequest):
    """Body of POST /v1/score: pairs of texts.

    Two fields contain the texts. They can be named text_1 and text_2, for example. The first field
    has as many texts as the second one, or a single text that is part of all pairs.
    """

    text_1: Texts | None = None
    """Query of each pair. text_2 must be sent as well."""
    text_2: Texts | None = None
    """Document of each pair."""
    queries: Texts | None = Field(None, description="Another name of text_1.")
    documents: Texts | None = Field(None, description="Another name of text_2, with queries.")
    data_1: Texts | None = Field(None, description="Another name of text_1.")
    data_2: Texts | None = Field(None, description="Another name of text_2, with data_1.")
    items: Items | None = None
    """If query is sent: texts or token ids that follow the query. If queries is sent: another name
    of text_2."""
    query: Query | None = None
    """Text or token ids before each of the items. Requires label_token_ids."""
    label_token_ids: (
        Annotated[TokenIds, Field(min_length=1, max_length=MAX_LOGPROB_TOKENS)] | None
    ) = None
    """Tokens whose probabilities after each prompt are the scores. Requires query."""
    apply_softmax: bool | None = None
    """Whether the probabilities of the labels are divided by their sum. Defaults to false."""
    item_first: bool | None = None
    """Whether each item comes before the query. Defaults to false."""
    scoring: Literal["relevance", "likelihood"] | None = None
    """relevance, the default: the probability that the second text is relevant to the first.
    likelihood: the log-likelihood of the second text after the first."""


class RerankRequest(ScoringRequest):
    """Body of POST /v1/rerank: a query, and documents to sort by their relevance."""

    query: Annotated[str, Field(min_length=1)]
    documents: Texts
    """Texts, or objects with a `text`."""
    top_n: Annotated[int, Field(ge=0)] | None = None
    """Number of results. 0, the default, returns all."""
    return_documents: bool | None = None
    """Whether results have the texts of their documents. Defaults to true."""
    instruct: Instruction | None = Field(None, description="Another name of instruction.")


class Score(Body):
    """The score of one pair."""

    object: Literal["score"] = "score"
    index: int
    score: float


class Scores(Body):
    """Response of POST /v1/score."""

    id: str
    object: Literal["list", "scoring"]
    created: int
    model: str
    system_fingerprint: str
    weight_version: str = Field(description=WEIGHT_VERSION)
    data: list[Score] | None = Field(None, description="Without label_token_ids.")
    scores: list[list[float]] | None = None
    """If the request has label_token_ids: the probabilities of the labels for each item."""
    usage: UsageBody


class RankedText(Body):
    """A document of a request."""

    text: str


class Ranked(Body):
    """One document's place in the order."""

    index: int = Field(description="Index of the document in the request.")
    document: RankedText | None = Field(None, description="Missing if it isn't asked for.")
    relevance_score: float = Field(description="Probability that the document is relevant.")


class Ranking(Body):
    """Response of POST /v1/rerank. The most relevant document is first."""

    id: str
    object: Literal["list"] = "list"
    created: int
    model: str
    system_fingerprint: str
    weight_version: str = Field(description=WEIGHT_VERSION)
    results: list[Ranked]
    usage: UsageBody
