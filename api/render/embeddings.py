"""Renders the result of a job for embeddings in OpenAI's format. Pure."""

import sys
from array import array
from base64 import b64decode
from typing import Any

from api.follow.transcript import ChoiceTranscript, Delta
from api.render.answer_format import Format
from shared.protocol.answers import AnswerSpec
from shared.protocol.ids import EMBEDDING_PREFIX


class EmbeddingFormat(Format):
    """Format of /v1/embeddings. The embeddings are in the result of a job, and never streamed."""

    object = "list"
    chunk_object = "list"
    choices_field = "data"

    def __init__(self, spec: AnswerSpec) -> None:
        self.id = f"{EMBEDDING_PREFIX}{spec.id}"
        self._encodes_base64 = spec.encodes_base64

    def choice(self, index: int, choice: ChoiceTranscript) -> dict[str, Any]:
        """Return the embedding of one input. The text of `choice` is base64 of float32."""
        value = choice.text if self._encodes_base64 else floats_of(choice.text)
        return {"object": "embedding", "index": index, "embedding": value}

    def delta(self, delta: Delta) -> list[dict[str, Any]]:
        """Return an empty list, because embeddings aren't streamed."""
        return []


def floats_of(encoded: str) -> list[float]:
    """Return the values of an embedding that is encoded as base64 of little-endian float32."""
    values = array("f", b64decode(encoded))
    if sys.byteorder == "big":
        values.byteswap()
    return values.tolist()
