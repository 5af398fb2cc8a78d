"""Lists steps that together use every variant of the Triton kernels.

Triton compiles a kernel anew for each combination of its compile-time constants, of its arguments'
types and of the divisibility of some arguments by 16. Within one model, these depend on the step's
number of tokens, on the lengths of its contexts, and on the number of tokens of each adapter.
"""

from typing import NamedTuple

from worker.kernels.triton import attention, lora


class SequenceShape(NamedTuple):
    """One sequence of a step."""

    context: int
    """Number of cached tokens of the sequence, including the tokens of this step."""
    num_tokens: int
    """Number of tokens that the step computes: the last tokens of the context."""
    adapter: int
    """Index of the sequence's adapter among the adapters of the step."""


def steps_of_all_variants() -> list[list[SequenceShape]]:
    """Return steps that together use every variant, each as a list of its sequences."""
    small, large = lora.DECODE_TOKENS, lora.MAX_SPLIT_TOKENS + 1
    return [
        *_decodes(context=1),
        *_decodes(context=attention.SPAN + 1),
        [_prompt(small + 1)],
        # So many tokens need no splits of the inputs. Their LoRA terms are computed in large tiles,
        # or in small ones if each adapter has only a few of the tokens.
        [_prompt(large)],
        [_prompt(small, adapter) for adapter in range(-(-large // small))],
    ]


def _decodes(context: int) -> list[list[SequenceShape]]:
    """Return a step with one decode and a step with two decodes.

    A dimension of size 1 has arbitrary strides. Therefore a step with a single token may need a
    variant of its own.
    """
    decode = SequenceShape(context, 1, adapter=0)
    return [[decode], [decode, decode]]


def _prompt(num_tokens: int, adapter: int = 0) -> SequenceShape:
    return SequenceShape(num_tokens, num_tokens, adapter)
