"""Samples tokens inside vLLM's processes exactly as the native engine does.

The class is a vLLM logits processor. It samples a token for each row that isn't plainly greedy, and
sets all other logits of the row to -inf. vLLM's greedy sampling then returns the sampled token. A
job can therefore move between native and vLLM workers and keep its seed, penalties and grammar.
"""

from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoTokenizer
from vllm import SamplingParams
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor
from vllm.v1.sample.logits_processor.builtin import process_dict_updates

from worker.engine.grammar import Grammar, GrammarCompiler, GrammarSource, GrammarState
from worker.engine.sampler import decide_, draw
from worker.engine_vllm.row_params import RowParams, row_params
from worker.kernels.transfer import to_device, to_host

PATH = f"{__name__}:JobSampler"
"""Name of the class in vLLM's arguments."""
CONFIG = "lorikeet"
"""Key of this class's settings in vLLM's `additional_config`."""
MAX_CACHED = 64
"""Maximum number of compiled grammars."""


class JobSampler(LogitsProcessor):  # type: ignore[misc]  # vLLM isn't installed where mypy runs
    """Samples the rows of requests that carry `RowParams`."""

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:
        settings = vllm_config.additional_config[CONFIG]
        self._rows: dict[int, _Row] = {}
        self._grammars = _Grammars(
            settings["tokenizer"], settings["vocab_size"], settings["eos_ids"]
        )

    def is_argmax_invariant(self) -> bool:
        """Return False: the processor must also run for batches without random sampling."""
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Update the rows when vLLM adds requests to the batch, or moves or removes requests."""
        process_dict_updates(self._rows, batch_update, self._new_row)

    def apply(self, logits: Tensor) -> Tensor:
        """Sample a token for each row with `RowParams`, and set the row's other logits to -inf.

        `logits` is `[S, V]` float32. If no token can be sampled, all logits of the row become -inf.
        vLLM then returns some token that the request's grammar or masks don't allow, and the worker
        detects this.
        """
        if not self._rows:
            return logits
        rows = list(self._rows.values())
        for row in rows:
            row.advance()
        (index,) = to_device([np.array([*self._rows])], logits.device)
        chosen = logits[index]
        tokens = draw(chosen, rows)
        (drawn,) = to_host([tokens])
        decide_(tokens, drawn, chosen, rows)
        logits[index] = -torch.inf
        # A row without a token keeps -inf everywhere, also for the token 0 that stands for it.
        least = torch.where(tokens < 0, -torch.inf, 0.0)
        logits[index, tokens.clamp(min=0)] = least
        return logits

    def _new_row(
        self, params: SamplingParams, prompt_ids: list[int] | None, output_ids: list[int]
    ) -> "_Row | None":
        found = row_params(params.extra_args)
        if found is None:
            return None
        grammar = self._grammars.compile(found.grammar) if found.grammar else None
        return _Row(found, prompt_ids or [], output_ids, grammar)


class _Row:
    """One request of the batch, in the form that the sampler reads."""

    def __init__(
        self, params: RowParams, prompt_ids: list[int], new_ids: list[int], grammar: Grammar | None
    ) -> None:
        """Create a row. The last `params.num_shown` tokens of `prompt_ids` are output tokens.

        vLLM appends the tokens that it outputs to `new_ids`.
        """
        end = len(prompt_ids) - params.num_shown
        self.sampling = params.sampling
        self.stop_ids = params.stop_ids
        self.prompt_ids, self._shown = prompt_ids[:end], prompt_ids[end:]
        self._new = new_ids
        self._num_advanced = len(new_ids)
        self.grammar: GrammarState | None = None
        if grammar:
            self.grammar = grammar.start([*self._shown, *new_ids])

    @property
    def output_ids(self) -> list[int]:
        """All output tokens, including tokens of earlier tries."""
        return [*self._shown, *self._new] if self._shown else self._new

    def advance(self) -> None:
        """Advance the grammar by the tokens that are new since the last call."""
        if self.grammar:
            for token in self._new[self._num_advanced :]:
                self.grammar.advance(token)  # the worker ends the request if it isn't allowed
            self._num_advanced = len(self._new)


class _Grammars:
    """Compiles grammars, and caches those that were used most recently."""

    def __init__(self, tokenizer: str, vocab_size: int, eos_ids: list[int]) -> None:
        self._tokenizer = tokenizer
        self._vocab_size = vocab_size
        self._eos_ids = eos_ids
        self.compile = lru_cache(MAX_CACHED)(self._compile)
        """Compiles a grammar. The worker has already compiled the same grammar without an error."""

    def _compile(self, source: str) -> Grammar:
        return self._compiler.compile(GrammarSource(source))

    @cached_property
    def _compiler(self) -> GrammarCompiler:
        # Most workers never need a grammar, and a tokenizer takes a second to load.
        tokenizer: Any = AutoTokenizer
        return GrammarCompiler(
            tokenizer.from_pretrained(self._tokenizer, local_files_only=True),
            vocab_size=self._vocab_size,
            eos_ids=self._eos_ids,
        )
