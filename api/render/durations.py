"""Times that the parts of an answer took, for answers that report them. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Durations:
    """Times in seconds, measured by the front end that sends the answer. None: not measured."""

    total_s: float
    """Seconds from the admission of the request to the end of the answer."""
    load_s: float | None = None
    """Seconds from the admission of the request until a worker had loaded the request's model
    and read its prompt."""
    prompt_s: float | None = None
    """Seconds from the end of `load_s` to the first token."""
    output_s: float | None = None
    """Seconds from the first token to the last token."""
