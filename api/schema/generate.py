"""Requests and responses of /generate, SGLang's API."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, PlainValidator, WithJsonSchema

from api.schema.base import WEIGHT_VERSION, Body, RequestModel
from api.schema.completions import PROMPT, as_prompts
from api.schema.generation import (
    INT64,
    MAX_CHOICES,
    MAX_LOGPROB_TOKENS,
    MAX_PROMPT_LOGPROBS,
    MAX_STOP_TOKENS,
    TokenIds,
    as_logit_bias,
    as_stops,
)
from api.schema.lists_of_equals import Same, as_same_ids
from api.schema.response_format import GrammarField, RegexField, SchemaField

MAX_RID_CHARS = 256
MAX_INTERVAL = 10_000
_TEXT, _IDS = PROMPT


def prompts_schema(prompt: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON Schema of a field with a prompt, a list of prompts, or null.

    `prompt` is the JSON Schema of one prompt.
    """
    several = {"type": "array", "items": prompt, "minItems": 1}
    return {"anyOf": [prompt, several, {"type": "null"}]}


def as_texts(value: Any) -> Any:
    """Return the field `text` as a list of texts, or None.

    Raises:
        ValueError: the value isn't a text or a list of texts, or a text is empty.
    """
    return _prompts(value, str, "must be a string or a list of strings, none of them empty")


def as_ids(value: Any) -> Any:
    """Return the field `input_ids` as a list of lists of token ids, or None.

    Raises:
        ValueError: the value isn't a list of token ids or a list of such lists, or one is empty.
    """
    return _prompts(value, list, "must be a list of token ids or of such lists, none of them empty")


def _prompts(value: Any, kind: type, rule: str) -> Any:
    if value is None:
        return None
    try:
        prompts = as_prompts(value)
    except ValueError:
        raise ValueError(rule) from None
    if not all(isinstance(prompt, kind) for prompt in prompts):
        raise ValueError(rule)
    return prompts


NumTop = Annotated[Annotated[int, Field(ge=0, le=MAX_PROMPT_LOGPROBS)] | None, Same()]


class GenerateSampling(RequestModel):
    """How the answers are sampled and ended. A field that is null has its default value."""

    model_config = ConfigDict(allow_inf_nan=False)

    max_new_tokens: Annotated[int, Field(ge=0)] | None = 128
    """Maximum number of tokens of an answer. null allows answers up to the end of the context. With
    0, only the prompt's tokens are scored."""
    min_new_tokens: Annotated[int, Field(ge=0)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1, lt=2**31)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    repetition_penalty: Annotated[float, Field(ge=0.01, le=100)] | None = None
    logit_bias: Annotated[
        dict[int, Annotated[float, Field(ge=-100, le=100)]],
        BeforeValidator(as_logit_bias),
        WithJsonSchema({"type": ["object", "null"], "additionalProperties": {"type": "number"}}),
    ] = Field(default_factory=dict, description="Values to add to the logits of token ids.")
    stop: Annotated[
        list[str],
        PlainValidator(as_stops),
        WithJsonSchema({"type": ["string", "array", "null"], "items": {"type": "string"}}),
    ] = Field(default_factory=list, description="Strings that end an answer.")
    stop_token_ids: Annotated[TokenIds, Field(max_length=MAX_STOP_TOKENS)] | None = None
    """Tokens that end an answer, besides the end-of-sequence token."""
    no_stop_trim: bool | None = None
    """Whether the text includes the stop string or stop token that ends it."""
    skip_special_tokens: bool | None = None
    """Whether the text leaves out special tokens. Defaults to true."""
    ignore_eos: bool | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    """Number of answers to each prompt. Defaults to 1. With more, the response is a list."""
    sampling_seed: Annotated[int, Field(ge=-INT64, lt=INT64)] | None = None
    """Requests with equal seeds sample equal tokens. Random by default."""
    json_schema: SchemaField | None = None
    """JSON Schema that answers must satisfy."""
    regex: RegexField | None = None
    """Regular expression that matches each answer as a whole."""
    ebnf: GrammarField | None = None
    """Lark or GBNF grammar of the answers."""
    stream_interval: Annotated[int, Field(ge=1, le=MAX_INTERVAL)] | None = None
    """Minimum number of new tokens in an event of a stream. Defaults to 1."""


class GenerateRequest(RequestModel):
    """Body of POST /generate, with SGLang's field names."""

    model_config = ConfigDict(
        json_schema_extra={"anyOf": [{"required": ["text"]}, {"required": ["input_ids"]}]}
    )

    text: Annotated[
        list[str] | None, PlainValidator(as_texts), WithJsonSchema(prompts_schema(_TEXT))
    ] = None
    """Prompt, or a list of prompts. The response to a list is a list."""
    input_ids: Annotated[
        list[list[int]] | None,
        PlainValidator(as_ids),
        WithJsonSchema(prompts_schema(_IDS)),
    ] = None
    """Token ids of the prompt, or of several prompts. Either this or text is required."""
    sampling_params: Annotated[GenerateSampling | None, Same()] = None
    lora_path: Annotated[Annotated[str, Field(min_length=1)] | None, Same()] = None
    """Name of the adapter that answers. By default, the base model answers."""
    rid: Annotated[str, Field(max_length=MAX_RID_CHARS)] | None = None
    """Name of the request. meta_info repeats it, and /abort_request takes it."""
    return_logprob: Annotated[bool | None, Same()] = None
    """Whether to return the log-probabilities of the answers' tokens."""
    logprob_start_len: Annotated[Annotated[int, Field(ge=-1)] | None, Same()] = None
    """Position in the prompt from which its tokens' log-probabilities are returned. -1, the
    default, returns none. Not available with stream."""
    top_logprobs_num: NumTop = None
    """Number of most likely tokens whose log-probabilities are returned at each position."""
    token_ids_logprob: Annotated[
        Annotated[TokenIds, Field(max_length=MAX_LOGPROB_TOKENS)] | None,
        Same(as_same_ids),
    ] = None
    """Tokens whose log-probabilities are returned at each position of the answer."""
    return_text_in_logprobs: bool | None = None
    """Whether log-probabilities have the texts of their tokens. Not available together with
    top_logprobs_num or token_ids_logprob."""
    return_prompt_token_ids: bool | None = None
    """Whether each answer has the token ids of its prompt, as prompt_token_ids."""
    stream: bool | None = None
    """Whether to send the answer as server-sent events. Each event has the whole answer so far."""

    @property
    def sampling(self) -> GenerateSampling:
        """Sampling parameters of the request, or the defaults."""
        return self.sampling_params or GenerateSampling()


class AbortRequest(RequestModel):
    """Body of POST /abort_request, with SGLang's field names."""

    rid: Annotated[str, Field(max_length=MAX_RID_CHARS)] | None = None
    """Name of the request to end, as its client has sent it."""
    abort_all: bool | None = None
    """Whether to end all requests of the key's tenant instead."""
    prefix: bool | None = None
    """Whether to end all requests whose names begin with rid."""


class FinishReasonBody(Body):
    """Reason why an answer ended."""

    type: Literal["stop", "length", "abort"]
    matched: int | str | None = Field(None, description="With stop: the token or string.")
    length: int | None = Field(None, description="With length: the number of tokens.")
    message: str | None = Field(None, description="With abort: why the request was ended.")


LogprobBody = tuple[float | None, int, str | None]
"""Log-probability of a token, its id, and its text, which is null unless the request asks for
texts."""


class MetaInfo(Body):
    """Description of an answer."""

    id: str = Field(description="rid of the request, or the id of its job.")
    finish_reason: FinishReasonBody | None = Field(description="null until the answer has ended.")
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int | None = None
    """Number of prompt tokens that were found in the prefix cache. Missing if the request has
    several answers, and in all events of a stream but the last."""
    weight_version: str = Field(description=WEIGHT_VERSION)
    output_token_logprobs: list[LogprobBody] | None = None
    """Log-probability of each token of the answer, its id, and its text or null."""
    output_token_logprobs_length: int | None = None
    input_token_logprobs: list[LogprobBody] | None = None
    """Log-probability of each token of the prompt from logprob_start_len on, its id, and its text
    or null. The first token of a prompt has no log-probability."""
    output_top_logprobs: list[list[LogprobBody]] | None = None
    input_top_logprobs: list[list[LogprobBody] | None] | None = None
    output_token_ids_logprobs: list[list[LogprobBody]] | None = None


class Generated(Body):
    """One answer. If the request has several prompts, or n is above 1, the response is a list."""

    text: str
    output_ids: list[int]
    meta_info: MetaInfo
    prompt_token_ids: list[int] | None = Field(None, description="If the request asks for it.")
    index: int | None = Field(None, description="Position in the list, in events of a stream.")


class Aborted(Body):
    """Response of POST /abort_request."""

    num_aborted: int = Field(description="Number of unfinished requests that were ended.")
