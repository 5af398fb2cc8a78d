"""What /v1/chat/completions and /v1/completions accept alike."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

MAX_STOPS = 16
MAX_CHOICES = 16
MAX_BIASES = 300
MAX_TOKEN_ID = 2**31 - 1
INT64 = 2**63
NOT_USED = "accepted, and not used: the answer's header X-Lorikeet-Warning says so"


def as_stops(value: Any) -> Any:
    """`stop` as a list: one string or several."""
    stops = [value] if isinstance(value, str) else value
    if stops is None:
        return []
    if not isinstance(stops, list) or not all(isinstance(stop, str) for stop in stops):
        raise ValueError("must be a string or a list of strings")
    if len(stops) > MAX_STOPS:
        raise ValueError(f"can have at most {MAX_STOPS} strings, not {len(stops)}")
    if "" in stops:
        raise ValueError("can't contain an empty string")
    return stops


def as_logit_bias(value: Any) -> Any:
    """`logit_bias` as a dict of token ids; in JSON they are strings."""
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(map(_is_token_id, value)):
        raise ValueError("must be an object with token ids as its names")
    if len(value) > MAX_BIASES:
        raise ValueError(f"can have at most {MAX_BIASES} token ids, not {len(value)}")
    return {int(token_id): bias for token_id, bias in value.items()}


def _is_token_id(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 10 and int(text) <= MAX_TOKEN_ID


class StreamOptions(BaseModel):
    """How a stream is sent."""

    model_config = ConfigDict(extra="forbid", strict=True)

    include_usage: bool | None = Field(None, description="a last chunk with the token counts")
    include_obfuscation: Literal[False] | None = Field(None, description="not served")


class GenerationRequest(BaseModel):
    """The fields that both endpoints share. null means the default everywhere."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    model: str = Field(min_length=1, description="the base model or an adapter, as in /v1/models")
    temperature: Annotated[float, Field(ge=0, le=2)] | None = Field(
        None, description="0 is greedy; by default 1"
    )
    top_p: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None, description="keep the likeliest tokens that sum up to this; by default 1, all"
    )
    top_k: Annotated[int, Field(ge=-1, lt=2**31)] | None = Field(
        None, description="keep this many likeliest tokens; 0 or -1, the default, keeps all"
    )
    min_p: Annotated[float, Field(ge=0, le=1)] | None = Field(
        None, description="keep tokens at least this likely relative to the likeliest; by default 0"
    )
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = Field(
        None, description="taken from the logits of tokens that the answer has; by default 0"
    )
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = Field(
        None, description="taken from a token's logit each time the answer has it; by default 0"
    )
    repetition_penalty: Annotated[float, Field(ge=0.01, le=100)] | None = Field(
        None,
        description="makes tokens of prompt and answer less likely if over 1, as in transformers",
    )
    logit_bias: Annotated[
        dict[int, Annotated[float, Field(ge=-100, le=100)]],
        BeforeValidator(as_logit_bias),
        WithJsonSchema(
            {
                "type": "object",
                "additionalProperties": {"type": "number", "minimum": -100, "maximum": 100},
                "maxProperties": MAX_BIASES,
            }
        ),
    ] = Field(default_factory=dict, description="added to the logits of these token ids")
    max_tokens: Annotated[int, Field(ge=1)] | None = Field(
        None, description="most tokens of one answer"
    )
    min_tokens: Annotated[int, Field(ge=0)] | None = Field(
        None, description="tokens before an answer may end by itself; by default 0"
    )
    stop: Annotated[
        list[str],
        BeforeValidator(as_stops),
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
    ] = Field(default_factory=list, description="strings that end an answer; not part of it")
    seed: Annotated[int, Field(ge=-INT64, lt=INT64)] | None = Field(
        None, description="equal seeds draw alike; by default a random one"
    )
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = Field(
        None, description="answers to the same prompt; by default 1"
    )
    ignore_eos: bool | None = Field(None, description="go on after the end-of-sequence token")
    stream: bool | None = Field(None, description="send the answer as it grows, as SSE")
    stream_options: StreamOptions | None = Field(None, description="only with stream")
    user: str | None = Field(None, description=NOT_USED)
    safety_identifier: str | None = Field(None, description=NOT_USED)
    metadata: dict[str, str] | None = Field(None, description=NOT_USED)
    service_tier: str | None = Field(None, description=NOT_USED)
    prompt_cache_key: str | None = Field(None, description=NOT_USED)
    prompt_cache_options: dict[str, Any] | None = Field(None, description=NOT_USED)
    prompt_cache_retention: str | None = Field(None, description=NOT_USED)
