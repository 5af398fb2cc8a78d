"""Request fields that /v1/chat/completions and /v1/completions share."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, PlainValidator, WithJsonSchema

from api.schema.base import IGNORED, USER, USER_AS_WELL, JobRequest, Off, RequestModel
from api.schema.metadata import Metadata
from api.schema.response_format import (
    ChoiceField,
    GrammarField,
    RegexField,
    ResponseFormat,
    SchemaField,
    StructuredOutputs,
)

MAX_STOPS = 16
MAX_CHOICES = 128
MAX_BIASES = 300
MAX_STOP_TOKENS = 256
MAX_ALLOWED_TOKENS = 4096
MAX_BAD_WORDS = 256
MAX_LOGPROB_TOKENS = 128
MAX_PROMPT_LOGPROBS = 20
MAX_WORD_CHARS = 256
MAX_SALT_CHARS = 256
MAX_TOKEN_ID = 2**31 - 1
INT64 = 2**63
ServiceTier = Literal["auto", "default", "flex", "priority"]


def as_stops(value: Any) -> Any:
    """Return the field `stop` as a list of strings. Clients may send a string, a list or null.

    Raises:
        ValueError: the value has another type, has too many strings, or contains an empty string.
    """
    stops = [value] if isinstance(value, str) else value
    if stops is None:
        return []
    if isinstance(stops, list) and len(stops) > MAX_STOPS:
        raise ValueError(f"can have at most {MAX_STOPS} strings, not {len(stops)}")
    if not isinstance(stops, list) or not all(isinstance(stop, str) for stop in stops):
        raise ValueError("must be a string or a list of strings")
    if "" in stops:
        raise ValueError("can't contain an empty string")
    return stops


def as_logit_bias(value: Any) -> Any:
    """Return the field `logit_bias` with integer keys. In JSON, all keys are strings.

    Raises:
        ValueError: the value isn't an object, has too many keys, or a key isn't a token id.
    """
    if value is None:
        return {}
    if isinstance(value, dict) and len(value) > MAX_BIASES:
        raise ValueError(f"can have at most {MAX_BIASES} token ids, not {len(value)}")
    if not isinstance(value, dict) or not all(map(_is_token_id, value)):
        raise ValueError("must be an object whose keys are token ids")
    return {int(token_id): bias for token_id, bias in value.items()}


def _is_token_id(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 10 and int(text) <= MAX_TOKEN_ID


TokenId = Annotated[int, Field(ge=0, le=MAX_TOKEN_ID)]
TokenIds = Annotated[list[TokenId], Field(fail_fast=True)]
Word = Annotated[str, Field(pattern=r"\S", max_length=MAX_WORD_CHARS)]


class StreamOptions(RequestModel):
    """Options of a streamed answer."""

    include_usage: bool | None = None
    """Whether the last chunk contains the token counts."""
    continuous_usage_stats: bool | None = None
    """Whether each chunk has the token counts of its choice so far."""
    include_obfuscation: Off | None = Field(None, description="Not supported.")


class GenerationRequest(JobRequest):
    """Request fields that both endpoints share. A field that is null has its default value."""

    model_config = ConfigDict(allow_inf_nan=False)

    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    """Sampling temperature; 0 selects the most likely token. Defaults to 1."""
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    """Samples from the most likely tokens whose probabilities sum up to this value. Defaults to 1,
    which keeps all tokens."""
    top_k: Annotated[int, Field(ge=-1, lt=2**31)] | None = None
    """Samples from this number of most likely tokens. 0 and -1 keep all tokens, as does the
    default."""
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    """Minimum probability of a token, relative to the most likely token. Defaults to 0."""
    top_n_sigma: Annotated[float, Field(ge=-1, le=100)] | None = None
    """Samples only from tokens whose logits are at most this number of standard deviations below
    the largest logit. Values of 0 and below keep all tokens, as does the default."""
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    """Subtracted from the logit of every token that the answer already contains. Defaults to 0."""
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    """Subtracted from a token's logit once for each time that the answer already contains it.
    Defaults to 0."""
    repetition_penalty: Annotated[float, Field(ge=0.01, le=100)] | None = None
    """Values above 1 make tokens of the prompt and the answer less likely, as in transformers.
    Defaults to 1."""
    logit_bias: Annotated[
        dict[int, Annotated[float, Field(ge=-100, le=100)]],
        BeforeValidator(as_logit_bias),
        WithJsonSchema(
            {
                "type": ["object", "null"],
                "additionalProperties": {"type": "number", "minimum": -100, "maximum": 100},
                "maxProperties": MAX_BIASES,
            }
        ),
    ] = Field(default_factory=dict, description="Values to add to the logits of these token ids.")
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    """Maximum number of tokens in one answer."""
    min_tokens: Annotated[int, Field(ge=0)] | None = None
    """Minimum number of tokens before an end-of-sequence token or a stop string can end an answer.
    Defaults to 0."""
    stop: Annotated[
        list[str],
        PlainValidator(as_stops),
        WithJsonSchema(
            {
                "anyOf": [
                    {"type": "string", "minLength": 1},
                    {
                        "type": "array",
                        "items": {"type": "string", "minLength": 1},
                        "maxItems": MAX_STOPS,
                    },
                    {"type": "null"},
                ]
            }
        ),
    ] = Field(default_factory=list)
    """Strings that end an answer. By default, the answer doesn't include them."""
    include_stop_str_in_output: bool | None = None
    """Whether answers include the stop string or stop token that ends them."""
    stop_token_ids: Annotated[TokenIds, Field(max_length=MAX_STOP_TOKENS)] | None = None
    """Tokens that end an answer, besides the end-of-sequence token."""
    allowed_token_ids: (
        Annotated[TokenIds, Field(min_length=1, max_length=MAX_ALLOWED_TOKENS)] | None
    ) = None
    """The only tokens that answers may contain."""
    bad_words: Annotated[list[Word], Field(max_length=MAX_BAD_WORDS, fail_fast=True)] | None = None
    """Texts that answers never contain, as sequences of tokens."""
    skip_special_tokens: bool | None = None
    """Whether answers leave out special tokens. Defaults to true."""
    return_token_ids: bool | None = None
    """Whether to return the token ids of the prompt and of the answers."""
    return_tokens_as_token_ids: bool | None = None
    """Whether log-probabilities name tokens by their ids, as token_id:5."""
    logprob_token_ids: Annotated[TokenIds, Field(max_length=MAX_LOGPROB_TOKENS)] | None = None
    """Tokens whose log-probabilities are returned at each position of the answer, instead of those
    of the most likely tokens. They come after the answer's own token. Requires logprobs."""
    prompt_logprobs: Annotated[int, Field(ge=0, le=MAX_PROMPT_LOGPROBS)] | None = None
    """Returns the log-probability of each token of the prompt, and this number of most likely
    tokens at each position. With stream, only 0 is allowed, and nothing is returned."""
    truncate_prompt_tokens: Annotated[int, Field(ge=-1, le=MAX_TOKEN_ID)] | None = None
    """Uses only this number of tokens at the end of each prompt. -1 uses as many as fit into the
    context together with max_tokens."""
    response_format: ResponseFormat | None = None
    """Constrains answers to JSON, optionally to a JSON Schema. Defaults to text."""
    structured_outputs: StructuredOutputs | None = None
    """Constrains answers to a JSON Schema, pattern, choice or grammar."""
    guided_json: SchemaField | None = Field(None, description="structured_outputs.json")
    guided_regex: RegexField | None = Field(None, description="structured_outputs.regex")
    guided_choice: ChoiceField | None = Field(None, description="structured_outputs.choice")
    guided_grammar: GrammarField | None = Field(None, description="structured_outputs.grammar")
    seed: Annotated[int, Field(ge=-INT64, lt=INT64)] | None = None
    """Requests with equal seeds sample equal tokens. Random by default."""
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    """Number of answers to each prompt. Defaults to 1."""
    cache_salt: Annotated[str, Field(min_length=1, max_length=MAX_SALT_CHARS)] | None = None
    """Requests reuse the KV cache of earlier requests only if both have the same cache_salt."""
    ignore_eos: bool | None = None
    """Whether to continue after the end-of-sequence token."""
    stream_options: StreamOptions | None = Field(None, description="Requires stream.")
    service_tier: ServiceTier | None = None
    """priority moves the request ahead of others that wait, by 10,000 tokens; flex moves it back by
    as many. auto and default don't move it."""
    user: str | None = Field(None, description=USER)
    safety_identifier: str | None = Field(None, description=USER_AS_WELL)
    metadata: Metadata | None = Field(None, description=IGNORED)
    prompt_cache_key: str | None = Field(None, description=IGNORED)
    prompt_cache_options: dict[str, Any] | None = Field(None, description=IGNORED)
    prompt_cache_retention: str | None = Field(None, description=IGNORED)
