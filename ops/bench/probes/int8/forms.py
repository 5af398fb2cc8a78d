"""Forms of a base model's weights that are compared."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # this imports torch, which some processes may import only later
    from worker.model.quantise import Quantize

BFLOAT16 = "bfloat16"
INT8: "Quantize" = "int8"
FORMS = (BFLOAT16, INT8)


def quantize_of(form: str) -> "Quantize | None":
    """Return the value of --quantize for a form, or None for bfloat16."""
    return INT8 if form == INT8 else None


def worker_flags(form: str) -> tuple[str, ...]:
    """Return the flags of a worker that serves the form."""
    quantize = quantize_of(form)
    return ("--quantize", quantize) if quantize else ()
