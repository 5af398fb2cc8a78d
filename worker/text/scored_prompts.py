"""Tokenizes the pairs of texts of jobs that ask for scores.

To get a document's relevance, a chat asks the model for it, in the words on which Qwen3-Reranker
was trained (https://huggingface.co/Qwen/Qwen3-Reranker-0.6B). The model's own template renders the
chat.
"""

import asyncio
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import takewhile
from operator import eq
from typing import Any

from shared.errors import JobFailed, invalid_value
from shared.protocol.jobs import Endpoint, Job, Prompt
from shared.protocol.scoring import ScoreKind, ScoringParams
from worker.text.interface import EncodedPrompt, PromptTokenizer, Scored
from worker.text.prompt_style import PromptStyle

WORDS = ("yes", "no")
"""The two possible answers to the question about relevance. Their probabilities are compared."""
SYSTEM = (
    "Judge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".'
)
"""System message of the chat that asks for a document's relevance."""
QUESTION = "<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {document}"
"""User message of the chat that asks for a document's relevance."""
PLAIN = f"{SYSTEM}\n\n{QUESTION}\n\nAnswer:"
"""Prompt for a model without a chat template. The tokenizer adds its special tokens to it."""
NO_REASONING = {"enable_thinking": False}
"""Chat template variables that switch reasoning off."""


async def encode_scored(
    tokenizer: PromptTokenizer, job: Job, style: PromptStyle
) -> list[EncodedPrompt]:
    """Tokenize the pairs of a job that asks for scores, in a thread.

    Raises:
        JobFailed: the client's input is invalid, or the model can't be asked for the relevance
            because of its chat template or tokenizer.
    """
    assert job.scoring is not None
    scoring, prompts = job.scoring, job.prompts
    match scoring.kind:
        case ScoreKind.RELEVANCE:
            frame = await _frame(tokenizer, job, style)
            encode = partial(_with_relevance, tokenizer, scoring, prompts, frame)
        case ScoreKind.LABELS:
            encode = partial(_with_labels, tokenizer, scoring, prompts)
        case ScoreKind.LIKELIHOOD:
            encode = partial(_with_likelihood, tokenizer, scoring, prompts)
    return await asyncio.to_thread(encode)


@dataclass(frozen=True, slots=True)
class _Frame:
    """The parts of a prompt before the query, between query and document, and after both."""

    before: str
    between: str
    after: str
    add_special_tokens: bool

    def around(self, query: str, document: str) -> str:
        return f"{self.before}{query}{self.between}{document}{self.after}"


async def _frame(tokenizer: PromptTokenizer, job: Job, style: PromptStyle) -> _Frame:
    """Return the parts of the prompt that the model's chat template renders around a pair.

    The template renders one chat with marks instead of the texts. If it rejects or omits the system
    message, it renders a chat whose user message begins with the system message's text.

    Raises:
        JobFailed: the template rejects both chats, or changes the texts.
    """
    assert job.scoring is not None
    marks = {"query": secrets.token_hex(16), "document": secrets.token_hex(16)}
    marks["instruction"] = job.scoring.instruction
    question = QUESTION.format(**marks)
    together = [{"role": "user", "content": f"{SYSTEM}\n\n{question}"}]
    apart = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": question}]
    failure = None
    for messages in (apart, together):
        try:
            text = await tokenizer.question_text(_chat(job, messages), style)
        except JobFailed as failed:
            failure = failed
            continue
        is_plain = text is None
        text = PLAIN.format(**marks) if text is None else text
        if SYSTEM in text and (parts := _split(text, marks["query"], marks["document"])):
            return _Frame(*parts, add_special_tokens=is_plain)
    message = "the model's chat template doesn't show the texts of messages unchanged"
    raise failure or invalid_value(f"{message}, so the model can't be asked for scores", "model")


def _chat(job: Job, messages: Sequence[dict[str, Any]]) -> Job:
    return replace(
        job,
        endpoint=Endpoint.CHAT,
        messages=tuple(messages),
        prompts=(),
        scoring=None,
        template_kwargs=NO_REASONING,
    )


def _split(text: str, query: str, document: str) -> tuple[str, str, str] | None:
    """Return the text before, between and after the marks `query` and `document`.

    Return None unless each mark occurs once, in this order.
    """
    before, _, rest = text.partition(query)
    between, _, after = rest.partition(document)
    is_split = before + query + between + document + after == text
    is_once = text.count(query) == 1 and text.count(document) == 1
    return (before, between, after) if is_split and is_once else None


def _with_relevance(
    tokenizer: PromptTokenizer, scoring: ScoringParams, documents: Sequence[Prompt], frame: _Frame
) -> list[EncodedPrompt]:
    labels = tokenizer.next_tokens(frame.after, WORDS)
    if len(set(labels)) < len(WORDS):
        message = "the first tokens of yes and no are the same in the model's tokenizer"
        raise invalid_value(f"{message}, so the model can't be asked for the relevance", "model")
    found = []
    for i, document in enumerate(documents):
        query = scoring.first(i)
        assert isinstance(query, str)
        assert isinstance(document, str)
        text = frame.around(query, _shortened(tokenizer, document, scoring.max_document_tokens))
        ids = tokenizer.encode_text(text, add_special_tokens=frame.add_special_tokens)
        found.append(EncodedPrompt(ids, "", scored=Scored(labels)))
    return found


def _shortened(tokenizer: PromptTokenizer, text: str, max_tokens: int | None) -> str:
    """Return the part of `text` that its first `max_tokens` tokens cover.

    If the last character is incomplete, it is left out.
    """
    if max_tokens is None or len(text) <= max_tokens:
        return text
    ids = tokenizer.encode_text(text, add_special_tokens=False)
    if len(ids) <= max_tokens:
        return text
    return tokenizer.decode(ids[:max_tokens]).rstrip("\N{REPLACEMENT CHARACTER}")


def _with_labels(
    tokenizer: PromptTokenizer, scoring: ScoringParams, prompts: Sequence[Prompt]
) -> list[EncodedPrompt]:
    labels = tuple(tokenizer.encode_prompt(scoring.label_ids, "label_token_ids"))
    found = []
    for i, prompt in enumerate(prompts):
        pair: Any = (
            (prompt, scoring.first(i)) if scoring.is_reversed else (scoring.first(i), prompt)
        )
        ids = tokenizer.encode_prompt(pair[0] + pair[1], f"{scoring.fields[1]}[{i}]")
        found.append(EncodedPrompt(ids, "", scored=Scored(labels)))
    return found


def _with_likelihood(
    tokenizer: PromptTokenizer, scoring: ScoringParams, prompts: Sequence[Prompt]
) -> list[EncodedPrompt]:
    found = []
    for i, prompt in enumerate(prompts):
        first, param = scoring.first(i), f"{scoring.fields[1]}[{i}]"
        assert isinstance(first, str)
        assert isinstance(prompt, str)
        ids = tokenizer.encode_prompt(first + prompt, param)
        alone = tokenizer.encode_text(first, add_special_tokens=True)
        num_unscored = _num_equal(ids, alone)
        if num_unscored in (0, len(ids)):
            field = scoring.fields[int(num_unscored > 0)]
            raise invalid_value(f"{field}: has no token of its own in pair {i}", field)
        found.append(EncodedPrompt(ids, "", scored=Scored(num_unscored=num_unscored)))
    return found


def _num_equal(ids: Sequence[int], others: Sequence[int]) -> int:
    """Return the length of the longest common prefix of two token sequences."""
    return sum(takewhile(bool, map(eq, ids, others)))
