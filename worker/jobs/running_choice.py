"""Progress of one answer, from its first token to its finish.

Decides whether the token that ends an answer has logprobs (`Reports.end_logprobs`).
"""

from base64 import b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from shared.errors import ErrorCode, failed
from shared.protocol.events import Tokens
from shared.protocol.jobs import ClaimedJob
from shared.protocol.logprobs import PositionLogprobs
from shared.protocol.results import FinishReason
from shared.reasoning_form import ReasoningForm
from worker.engine.request import RequestId, StepOutput, TokenLogprobs
from worker.jobs.scores import score_text
from worker.jobs.token_logprobs import describe_position, describe_prompt, score_prompt
from worker.text.detokenizer import TextStream
from worker.text.interface import Scored
from worker.text.reasoning_count import ReasoningCounter


@dataclass(frozen=True, slots=True, kw_only=True)
class Reports:
    """Data to publish about a choice in addition to its tokens, their text and logprobs."""

    prompt_ids: bool = False
    """Whether the prompt's tokens are published."""
    end_logprobs: bool = False
    """Whether logprobs include the token that ends the choice, which isn't part of its text."""
    echoed_top: int | None = None
    """For each token of an echoed prompt, the number of likeliest tokens in its logprobs.

    None if these logprobs aren't published."""
    scored_top: int | None = None
    """For each token of the prompt, the number of likeliest tokens in its scores.

    None if the scores aren't published."""
    stop_tokens: frozenset[int] = frozenset()
    """Token ids that are published in the event's `stop` field if they end the choice."""
    scored: Scored | None = None
    """Labels or tokens that the prompt's score is computed from; None if the job needs no score."""

    @property
    def need_prompt_logprobs(self) -> bool:
        """Whether the engine must compute logprobs of the prompt."""
        sums_prompt = self.scored is not None and not self.scored.labels
        return sums_prompt or self.echoed_top is not None or self.scored_top is not None


class PendingTokens:
    """Tokens of one choice that must still be published, or must still be saved in a checkpoint."""

    __slots__ = (
        *("finish", "ids", "index", "logprobs", "stop", "text"),
        *("prompt_ids", "prompt_logprobs", "prompt_scores"),
    )

    def __init__(self, index: int = 0, prompt_ids: tuple[int, ...] = ()) -> None:
        """Create an empty list. Its next token has the index `index` in the choice.

        The event that begins with token 0 also contains `prompt_ids`.
        """
        self.index = index
        self.prompt_ids = prompt_ids
        self.ids: list[int] = []
        self.text = ""
        self.finish: FinishReason | None = None
        self.stop: str | int | None = None
        self.logprobs: tuple[PositionLogprobs, ...] = ()
        self.prompt_logprobs: tuple[PositionLogprobs, ...] = ()
        self.prompt_scores = ""

    def __bool__(self) -> bool:
        return bool(self.ids) or self.finish is not None

    def add(
        self,
        ids: Iterable[int],
        text: str,
        finish: FinishReason | None,
        stop: str | int | None,
    ) -> None:
        """Append tokens and their text. `finish` is None unless the tokens complete the answer."""
        self.ids.extend(ids)
        self.text += text
        self.finish, self.stop = finish, stop

    def take(self, claimed: ClaimedJob, choice: int) -> Tokens:
        """Return the tokens as an event, and clear the list."""
        event = Tokens(
            job=claimed.job.id,
            try_=claimed.try_,
            choice=choice,
            index=self.index,
            ids=tuple(self.ids),
            text=self.text,
            finish=self.finish,
            stop=self.stop,
            logprobs=self.logprobs,
            prompt_logprobs=self.prompt_logprobs,
            prompt_ids=() if self.index else self.prompt_ids,
            prompt_scores=self.prompt_scores,
        )
        self.index += len(self.ids)
        self.ids, self.text, self.finish, self.stop = [], "", None, None
        self.logprobs = self.prompt_logprobs = ()
        self.prompt_scores = ""
        return event


class RunningChoice:
    """One answer that is being generated."""

    def __init__(
        self,
        request_id: RequestId,
        choice: int,
        stream: TextStream,
        *,
        prompt_ids: list[int],
        max_tokens: int,
        images: object | None = None,
        reasoning: ReasoningForm | None = None,
        reports: Reports = Reports(),
    ) -> None:
        """Create a choice without tokens. `stream` is an empty text stream.

        `reasoning` is the form of the reasoning that may begin the answer.
        """
        self.request_id = request_id
        self.choice = choice
        self.prompt_ids = prompt_ids
        self.images = images
        """The prompt's images in the engine's form; None if there are none."""
        self.max_tokens = max_tokens
        self.num_cached_tokens = 0
        """Number of prompt tokens that the engine found in its KV cache."""
        self.ids: list[int] = []
        self.finish: FinishReason | None = None
        self.stop: str | int | None = None
        """Stop string or stop token that ended the choice, as in `Tokens.stop`; else None."""
        self.logprobs: list[PositionLogprobs] = []
        """Logprobs of the output tokens, in the format of `Tokens.logprobs`."""
        self.prompt_logprobs: tuple[PositionLogprobs, ...] = ()
        """Logprobs of the prompt, in the format of `Tokens.prompt_logprobs`."""
        self.prompt_scores = ""
        """Scores of the prompt, in the format of `Tokens.prompt_scores`."""
        self.reports = reports
        self.reported_prompt_ids = tuple(prompt_ids) if reports.prompt_ids else ()
        """Tokens of the prompt; empty unless the job reports them."""
        self.unpublished = PendingTokens(prompt_ids=self.reported_prompt_ids)
        """Tokens that are in no published event yet."""
        self.unsaved = PendingTokens(prompt_ids=self.reported_prompt_ids)
        """Tokens that are in no checkpoint yet."""
        self.saved_at = 0.0
        """Time of the last checkpoint, in seconds on the event loop's clock."""
        self.saved_in = 0
        """Sequence number of the publication that contained the last checkpoint."""
        self._stream = stream
        self._reasoning = ReasoningCounter(reasoning)
        self._text: list[str] = []

    @property
    def text(self) -> str:
        """Text of the answer so far, without the text that the stream holds back."""
        return "".join(self._text)

    @property
    def num_reasoning_tokens(self) -> int:
        """Number of tokens between the markers of reasoning so far."""
        return self._reasoning.num_tokens

    @property
    def needs_prompt_logprobs(self) -> bool:
        """Whether the engine must still compute the logprobs of the prompt.

        They are published in the choice's first event.
        """
        return self.reports.need_prompt_logprobs and not self.ids and self.finish is None

    @property
    def is_at_limit(self) -> bool:
        """Whether the choice has all tokens and prompt logprobs that the request asks for.

        False once `finish` is set.
        """
        has_all_tokens = len(self.ids) >= self.max_tokens
        return self.finish is None and has_all_tokens and not self.needs_prompt_logprobs

    def accept(self, output: StepOutput) -> None:
        """Append a token that the engine has sampled. If it completes a stop string, set `finish`.

        The caller must then abort the engine's request. An output without a token has an embedding
        or only the scores of the prompt, and finishes the choice.
        """
        if output.embedding is not None:
            self._finish_with(b64encode(output.embedding).decode(), output.num_cached_tokens)
            return
        if self.reports.scored is not None:
            self._finish_with(score_text(self.reports.scored, output), output.num_cached_tokens)
            return
        if not self.ids:
            self.num_cached_tokens = min(output.num_cached_tokens, len(self.prompt_ids))
        if output.prompt_logprobs is not None:
            self._add_prompt_logprobs(output.prompt_logprobs)
        if output.token_id is None:
            self.finish_at_limit()
        else:
            self._accept_token(output.token_id, output)

    def _accept_token(self, token_id: int, output: StepOutput) -> None:
        finish = output.finish
        is_hidden = finish is FinishReason.STOP and not self._stream.includes_stop
        if output.logprobs and (self.reports.end_logprobs or not is_hidden):
            self._add_logprobs(describe_position(token_id, output.logprobs, self._stream))
        if is_hidden:  # an end-of-sequence or stop token adds no text
            self.stop = token_id if token_id in self.reports.stop_tokens else None
            self._advance([token_id], self._stream.close(), finish)
            return
        if finish is FinishReason.STOP and token_id in self.reports.stop_tokens:
            self.stop = token_id
        text = self._fed(token_id)
        text += self._stream.close() if finish else ""
        self._advance([token_id], text, finish)

    def _finish_with(self, value: str, num_cached_tokens: int) -> None:
        """Finish the choice with `value`, an embedding or a score as text.

        Only the job's result contains the text; no event does.
        """
        self.num_cached_tokens = min(num_cached_tokens, len(self.prompt_ids))
        self._text, self.finish = [value], FinishReason.STOP

    def restore(self, published: Tokens) -> None:
        """Continue the choice after tokens that earlier tries have published.

        Raises:
            JobFailed: this worker decodes the tokens to a different text than the published one.
        """
        self.ids, self.finish, self.stop = [*published.ids], published.finish, published.stop
        self.logprobs = list(published.logprobs)
        self.prompt_logprobs = published.prompt_logprobs
        self.prompt_scores = published.prompt_scores
        text = "".join([self._fed(token_id) for token_id in published.ids])
        if self.finish is None and text != published.text:
            message = "another worker has published a text that this worker can't continue"
            raise failed(ErrorCode.RESUME_DIVERGED, message)
        self._text = [published.text]
        self.unpublished = PendingTokens(len(self.ids), self.reported_prompt_ids)
        self.unsaved = PendingTokens(len(self.ids), self.reported_prompt_ids)

    def full_checkpoint(self, claimed: ClaimedJob) -> Tokens:
        """Return all tokens so far as one event, and clear `unsaved`."""
        self.unsaved = PendingTokens(len(self.ids), self.reported_prompt_ids)
        full = PendingTokens(prompt_ids=self.reported_prompt_ids)
        full.add(self.ids, self.text, self.finish, self.stop)
        full.logprobs, full.prompt_logprobs = tuple(self.logprobs), self.prompt_logprobs
        full.prompt_scores = self.prompt_scores
        return full.take(claimed, self.choice)

    def finish_at_limit(self) -> None:
        """Finish an answer that already has `max_tokens` tokens."""
        self._advance([], self._stream.close(), FinishReason.LENGTH)

    def _fed(self, token_id: int) -> str:
        """Return the text that a token completes, and count the token if it is reasoning."""
        text = self._stream.feed(token_id)
        self._reasoning.add(text)
        return text

    def _add_logprobs(self, position: PositionLogprobs) -> None:
        self.logprobs.append(position)
        for pending in (self.unpublished, self.unsaved):
            pending.logprobs += (position,)

    def _add_prompt_logprobs(self, logprobs: Sequence[TokenLogprobs]) -> None:
        stream, ids = self._stream.of_prompt(), self.prompt_ids
        if (num_top := self.reports.echoed_top) is not None:
            self.prompt_logprobs = describe_prompt(ids, logprobs, stream, num_top=num_top)
        if (num_top := self.reports.scored_top) is not None:
            self.prompt_scores = score_prompt(ids, logprobs, stream.token_bytes, num_top=num_top)
        for pending in (self.unpublished, self.unsaved):
            pending.prompt_logprobs = self.prompt_logprobs
            pending.prompt_scores = self.prompt_scores

    def _advance(self, ids: list[int], text: str, finish: FinishReason | None) -> None:
        self.finish = finish
        if self._stream.stopped_by:
            self.finish, self.stop = FinishReason.STOP, self._stream.stopped_by
        self.ids += ids
        self._text.append(text)
        for pending in (self.unpublished, self.unsaved):
            pending.add(ids, text, self.finish, self.stop)
