"""Carries a request's sampling parameters to the process that samples.

vLLM passes `SamplingParams.extra_args` on unchanged. Importing this module needs no vLLM.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from worker.engine.logits import is_adjusted
from worker.engine.request import ChoiceSampling, Request

EXTRA_ARG = "lorikeet"


@dataclass(frozen=True, slots=True, kw_only=True)
class RowParams:
    """Parameters of a request that the sampler needs besides the request's tokens."""

    sampling: ChoiceSampling
    num_shown: int
    """Number of output tokens of earlier tries of the job. vLLM's prompt ends with them."""
    stop_ids: frozenset[int]
    grammar: str | None
    """The grammar as text; None if any text is allowed."""


def extra_args_of(request: Request) -> dict[str, Any] | None:
    """Return the arguments for a request, or None if vLLM's own greedy sampling suffices."""
    if request.sampling.temperature == 0 and not is_adjusted(request):
        return None
    grammar = request.grammar.source if request.grammar else None
    return {
        EXTRA_ARG: {
            "sampling": asdict(request.sampling),
            "num_shown": len(request.output_ids),
            "stop_ids": sorted(request.stop_ids),
            "grammar": grammar,
        }
    }


def row_params(extra_args: Mapping[str, Any] | None) -> RowParams | None:
    """Return the parameters that `extra_args_of` put into `extra_args`, or None if it put none.

    The transfer between processes may have turned tuples into lists.
    """
    sent = (extra_args or {}).get(EXTRA_ARG)
    if sent is None:
        return None
    fields = {name: _as_tuple(value) for name, value in sent["sampling"].items()}
    return RowParams(
        sampling=ChoiceSampling(**fields),
        num_shown=sent["num_shown"],
        stop_ids=frozenset(sent["stop_ids"]),
        grammar=sent["grammar"],
    )


def _as_tuple(value: Any) -> Any:
    return tuple(map(_as_tuple, value)) if isinstance(value, list | tuple) else value
