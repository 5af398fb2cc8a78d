"""Turns the errors of a model that can't be loaded or run into one-line refusals.

`../verify.py` checks what a model computes.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from transformers import PreTrainedModel

from shared.errors import LorikeetError, ModelRejected, first_line

OTHER_ENGINE = "try --engine vllm"
"""Advice for a model that the native engine can't serve, but vLLM may be able to serve."""

OTHER_ENGINE_IF_KNOWN = f"{OTHER_ENGINE} if vLLM knows this model"
"""Advice for a model that computes attention with its own code."""
_MAX_NAMED = 3
"""Number of names that an error lists."""


def some_of(names: Sequence[str]) -> str:
    """Return text for an error message: the first few of `names`, and how many others there are."""
    more = len(names) - _MAX_NAMED
    return ", ".join(names[:_MAX_NAMED]) + (f" and {more} more" if more > 0 else "")


def attention_refusal(source: str, model: PreTrainedModel, error: Exception) -> ModelRejected:
    """Return the refusal of a model with unsupported attention. `error` names the feature."""
    return ModelRejected(
        f"--model {source}: {type(model).__name__} uses {error}, which the native engine can't "
        f"compute; {OTHER_ENGINE}"
    )


def layers_refusal(
    source: str, model: PreTrainedModel, num_layers: int, num_calls: int
) -> ModelRejected:
    """Return the refusal of a model that computes attention with its own code.

    `num_calls` is the number of calls of transformers' attention interface in one forward pass.
    """
    return ModelRejected(
        f"--model {source}: {type(model).__name__} doesn't send each of its {num_layers} "
        f"layers through transformers' attention interface ({num_calls} calls), so the "
        f"native engine can't serve it exactly; {OTHER_ENGINE_IF_KNOWN}"
    )


@contextmanager
def refusing_by_name(source: str, model: PreTrainedModel) -> Iterator[None]:
    """Turn every error inside the context into a refusal of the model.

    Architectures fail in many ways when they get packed tokens, or when they get no cache of
    transformers. Restarting the worker doesn't help against any of these errors.
    """
    try:
        yield
    except LorikeetError:
        raise
    except torch.OutOfMemoryError as error:
        raise ModelRejected(
            f"--model {source} leaves too little memory on {model.device} to compute "
            f"({first_line(error)}); use a smaller model, or several GPUs with --engine vllm"
        ) from error
    except Exception as error:
        raise ModelRejected(
            f"--model {source}: the native engine can't run {type(model).__name__} "
            f"({type(error).__name__}: {first_line(error)}); {OTHER_ENGINE}"
        ) from error
