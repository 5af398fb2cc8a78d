"""Probe: how far int8 changes a base model's predictions, beside bfloat16 and llama.cpp's Q8_0."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoTokenizer

from ops.bench.probes.int8.forms import BFLOAT16
from ops.bench.probes.int8.variants import FLOAT32, Predict, variants
from shared.errors import SettingsError

WINDOW = 512
"""Number of tokens that are computed together. Each window starts without context."""
SCORED = WINDOW // 2
"""Number of predictions of a window that count: the last, as in llama.cpp's `llama-perplexity`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deviation:
    """How far a variant's predictions are from those of a reference."""

    reference: str
    kl: float
    """Mean Kullback-Leibler divergence per token, of the variant from the reference, in nats."""
    kl_p99: float
    same_top: float
    """Share of positions at which both find the same token most probable."""
    perplexity_ratio: float
    """Perplexity as a multiple of the reference's."""
    ratio_error: float
    """Standard error of `perplexity_ratio`, from the differences of the tokens' logprobs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """Predictions of one variant of the model."""

    variant: str
    perplexity: float
    deviations: tuple[Deviation, ...]

    def lines(self) -> tuple[str, ...]:
        """Return a summary: the perplexity, then one line for each reference."""
        return (
            f"{self.variant}: perplexity {self.perplexity:.3f}",
            *(
                f"{self.variant} from {one.reference}: KL {one.kl:.3g}, p99 {one.kl_p99:.2g}, same "
                f"top token {one.same_top:.2%}, perplexity x {one.perplexity_ratio:.4f} +- "
                f"{one.ratio_error:.4f}"
                for one in self.deviations
            ),
        )


@dataclass(slots=True)
class _Predictions:
    logprobs: Tensor
    """`[tokens, vocab]` float32."""
    of_next: Tensor
    """`[tokens]`: logprobs of the tokens that follow in the text."""


def windows_of(folder: Path, text: str, tokens: int) -> list[Tensor]:
    """Return the first `tokens` token ids of the text, in whole windows of `WINDOW`.

    Raises:
        SettingsError: the text is shorter.
    """
    tokenizer = AutoTokenizer.from_pretrained(folder)
    # Without `verbose`, the tokenizer doesn't warn that the text exceeds the model's context.
    ids = tokenizer(text, return_tensors="pt", verbose=False)["input_ids"][0]
    if len(ids) < tokens:
        raise SettingsError(f"--tokens {tokens}: the text has only {len(ids)} tokens")
    return list(ids[: tokens - tokens % WINDOW].split(WINDOW))


def measure_quality(
    folder: Path, windows: Sequence[Tensor], report: Callable[[str], None]
) -> list[Quality]:
    """Compute the predictions of all variants of the model in `folder`, one after another.

    The predictions in float32 and in bfloat16 stay in memory, because the others are compared with
    them.
    """
    references: dict[str, _Predictions] = {}
    found = []
    for variant, load in variants(folder).items():
        got = _predictions(load(), windows)
        quality = Quality(
            variant=variant,
            perplexity=math.exp(-got.of_next.mean()),
            deviations=tuple(_deviation(name, one, got) for name, one in references.items()),
        )
        for line in quality.lines():
            report(line)
        found.append(quality)
        if variant in {FLOAT32, BFLOAT16}:
            references[variant] = got
    return found


def _predictions(predict: Predict, windows: Sequence[Tensor]) -> _Predictions:
    # No token of the window follows the last prediction.
    logprobs = torch.cat([predict(ids, SCORED)[:-1].log_softmax(-1) for ids in windows])
    following = torch.cat([ids[-SCORED + 1 :] for ids in windows])
    return _Predictions(logprobs, logprobs.gather(1, following[:, None]).squeeze(1).double())


def _deviation(name: str, reference: _Predictions, got: _Predictions) -> Deviation:
    rows = zip(
        torch.split(reference.logprobs, WINDOW), torch.split(got.logprobs, WINDOW), strict=True
    )
    kl = torch.cat([(p.exp() * (p - q)).sum(-1) for p, q in rows]).double()
    tops = [one.logprobs.argmax(-1) for one in (reference, got)]
    worse = reference.of_next - got.of_next
    ratio = math.exp(worse.mean())
    return Deviation(
        reference=name,
        kl=float(kl.mean()),
        kl_p99=float(kl.quantile(0.99)),
        same_top=float((tops[0] == tops[1]).double().mean()),
        perplexity_ratio=ratio,
        ratio_error=ratio * float(worse.std()) / math.sqrt(len(worse)),
    )
