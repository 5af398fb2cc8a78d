"""The pairs of texts in requests for scores. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass

from api.schema.scores import ScoreRequest
from shared.errors import JobFailed, invalid_param
from shared.protocol.jobs import Prompt

MAX_SIZE = 8_000_000
"""Maximum number of characters or token ids in all pairs of a request. A first text counts once
for each of its pairs, because the worker tokenizes it once for each."""
TEXT_FIELDS = (
    ("text_1", "text_2"),
    ("queries", "documents"),
    ("queries", "items"),
    ("data_1", "data_2"),
)
"""Pairs of request fields: the field with the first texts, and the field with the second texts."""
ITEM_FIELDS = ("query", "items")
"""Fields with the first text and the second texts in a request with label_token_ids."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """The pairs of texts that a request asks to score."""

    fields: tuple[str, str]
    """Names of the request fields that contain the first and the second texts."""
    firsts: tuple[Prompt, ...]
    """First text of each pair, or a single first text that all pairs share."""
    seconds: tuple[Prompt, ...]

    @property
    def is_text(self) -> bool:
        """Whether the texts of the pairs are strings rather than lists of token ids."""
        return isinstance(self.firsts[0], str)

    def lengths(self) -> Iterator[int]:
        """Yield the length of each pair: its number of characters, or of token ids."""
        for i, second in enumerate(self.seconds):
            yield len(self.firsts[i % len(self.firsts)]) + len(second)

    def check_size(self) -> None:
        """Raise `JobFailed` if all pairs together are larger than `MAX_SIZE`."""
        size = sum(self.lengths())
        if size > MAX_SIZE:
            first, second = self.fields
            unit = "characters" if self.is_text else "token ids"
            message = f"and {first}, which is repeated for each, have {size} {unit} together, but "
            raise invalid_param(second, f"{message}at most {MAX_SIZE}; send several requests")


def text_pairs(request: ScoreRequest) -> Pairs:
    """Return the pairs of a request without label_token_ids.

    Raises:
        JobFailed: the request doesn't have exactly the two fields of one pair in `TEXT_FIELDS`,
            their numbers of texts don't match, or a text is a list of token ids.
    """
    if request.query is not None:
        raise invalid_param("query", "is only allowed with label_token_ids; send queries")
    for name in ("apply_softmax", "item_first"):
        if getattr(request, name) is not None:
            raise invalid_param(name, "is only allowed with label_token_ids")
    fields = _sent_fields(request)
    firsts, seconds = (tuple(getattr(request, name)) for name in fields)
    if not all(isinstance(text, str) for text in seconds):
        raise invalid_param(fields[1], "can only be token ids with label_token_ids")
    if len(firsts) not in (1, len(seconds)):
        raise invalid_param(
            fields[0],
            f"has {len(firsts)} texts, but must have one, or one for each of the {len(seconds)} "
            f"texts of {fields[1]}",
        )
    return Pairs(fields, firsts, seconds)


def item_pairs(request: ScoreRequest) -> Pairs:
    """Return the pairs of a request with label_token_ids.

    Raises:
        JobFailed: a field is missing, a field isn't allowed with label_token_ids, or one of the two
            fields has text and the other has token ids.
    """
    for name in {name for pair in TEXT_FIELDS for name in pair} - {"items"} | {"scoring"}:
        if getattr(request, name) is not None:
            raise invalid_param(name, "isn't allowed with label_token_ids; send query and items")
    if request.query is None or request.items is None:
        missing = "query" if request.query is None else "items"
        raise invalid_param(missing, "is required with label_token_ids")
    first = request.query if isinstance(request.query, str) else tuple(request.query)
    seconds = tuple(item if isinstance(item, str) else tuple(item) for item in request.items)
    if any(isinstance(item, str) is not isinstance(first, str) for item in seconds):
        raise invalid_param("items", "and query must either all be texts or all be token ids")
    return Pairs(ITEM_FIELDS, (first,), seconds)


def _sent_fields(request: ScoreRequest) -> tuple[str, str]:
    names = dict.fromkeys(name for pair in TEXT_FIELDS for name in pair)
    sent = {name for name in names if getattr(request, name) is not None}
    for pair in TEXT_FIELDS:
        if sent == set(pair):
            return pair
    raise _no_pair(sent)


def _no_pair(sent: set[str]) -> JobFailed:
    """Return the error for `sent` fields that aren't a pair. It names a missing field."""
    allowed = ", ".join(" and ".join(pair) for pair in TEXT_FIELDS)
    usual = next((pair for pair in TEXT_FIELDS if sent & set(pair)), TEXT_FIELDS[0])
    missing = next((name for name in usual if name not in sent), usual[0])
    return invalid_param(missing, f"can't be combined so; send exactly two fields: {allowed}")
