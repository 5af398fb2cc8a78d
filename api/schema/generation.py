"""What /v1/chat/completions and /v1/completions accept alike."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

MAX_STOPS = 16
MAX_CHOICES = 16
INT64 = 2**63


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
    max_tokens: Annotated[int, Field(ge=1)] | None = Field(
        None, description="most tokens of one answer"
    )
    stop: Annotated[
        list[str],
        BeforeValidator(as_stops),
        WithJsonSchema(
            {
                "anyOf": [
                    {"type": "string"},
                    {"type": "array", "items": {"type": "string"}, "maxItems": MAX_STOPS},
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
    user: str | None = Field(None, description="accepted, and not used")
