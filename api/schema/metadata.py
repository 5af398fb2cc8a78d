"""Metadata that clients attach to requests and batches, with OpenAI's limits."""

from typing import Annotated

from pydantic import AfterValidator, Field

MAX_KEYS = 16
MAX_KEY_CHARS = 64
MAX_VALUE_CHARS = 512
LIMITS = (
    f"At most {MAX_KEYS} keys of {MAX_KEY_CHARS} characters, with values of {MAX_VALUE_CHARS} "
    "characters."
)
"""Sentence for descriptions of the field."""


def _limited(metadata: dict[str, str]) -> dict[str, str]:
    for key, value in metadata.items():
        if len(key) > MAX_KEY_CHARS:
            raise ValueError(f"a key has more than {MAX_KEY_CHARS} characters: {key[:20]!r}...")
        if len(value) > MAX_VALUE_CHARS:
            raise ValueError(f"the value of {key!r} has more than {MAX_VALUE_CHARS} characters")
    return metadata


Metadata = Annotated[dict[str, str], Field(max_length=MAX_KEYS), AfterValidator(_limited)]
