"""Turns the errors of a model that can't be loaded or run into one line.

`../verify.py` checks what a model computes.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from transformers import PreTrainedModel

from shared.errors import LorikeetError, ModelRejected, first_line

OTHER_ENGINE = "try --engine vllm"
"""Advice for a model that only the other engine may serve. The page of types shows results."""

OTHER_ENGINE_IF_KNOWN = f"{OTHER_ENGINE} if vLLM knows this model"
"""The advice for a model that bypasses transformers' attention interface; vLLM may know it."""
_MAX_NAMED = 3
"""Number of names that an error lists."""


def some_of(names: Sequence[str]) -> str:
    """Return the first of `names` and the number of the others, for an error message."""
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

    Architectures fail in many ways if they are called with packed tokens and without a cache of
    transformers. A restart of the worker helps against none of these errors.
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
