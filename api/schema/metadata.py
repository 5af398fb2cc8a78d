"""The field `metadata` that clients attach to requests and batches, with OpenAI's limits."""

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

MAX_KEYS = 16
MAX_KEY_CHARS = 64
MAX_VALUE_CHARS = 512
METADATA_LIMITS = (
    f"At most {MAX_KEYS} keys of {MAX_KEY_CHARS} characters, with values of {MAX_VALUE_CHARS} "
    "characters."
)
"""Sentence about the limits, for the descriptions of fields of type `Metadata`."""


def _of_few_keys(metadata: Any) -> Any:
    """Refuse metadata with too many keys before pydantic checks each of the values."""
    if isinstance(metadata, dict) and len(metadata) > MAX_KEYS:
        raise ValueError(f"can have at most {MAX_KEYS} keys, not {len(metadata)}")
    return metadata


def _of_short_texts(metadata: dict[str, str]) -> dict[str, str]:
    for key, value in metadata.items():
        if len(key) > MAX_KEY_CHARS:
            raise ValueError(f"a key has more than {MAX_KEY_CHARS} characters: {key[:20]!r}...")
        if len(value) > MAX_VALUE_CHARS:
            raise ValueError(f"the value of {key!r} has more than {MAX_VALUE_CHARS} characters")
    return metadata


Metadata = Annotated[
    dict[str, str],
    Field(max_length=MAX_KEYS),
    BeforeValidator(_of_few_keys),
    AfterValidator(_of_short_texts),
]
"""Type of the field `metadata` in requests."""
