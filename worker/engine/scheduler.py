"""Chooses which tokens of each request the next step computes. Policy only.

A request's tokens are computed in chunks, over several steps. Each step has a token budget. Decodes
get tokens first, then unfinished prefills, then waiting requests in order. Requests for embeddings
and scores start late, because one job may have thousands of them, and preemptible requests start
last. When KV blocks run out, a running request is preempted and recomputed later: the youngest
preemptible one or, if there is none, the youngest of all. So requests that aren't preemptible can
be preempted too, but the oldest of these never is. Therefore there is always progress.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from worker.engine.block_manager import BlockManager
from worker.engine.draft import NO_DRAFT, Draft
from worker.engine.pace import Pace, StepSize
from worker.engine.request import Request, RequestId, RequestStatus


@dataclass(frozen=True, slots=True)
class Chunk:
    """The tokens of one request that a step computes."""

    request: Request
    start: int
    num_tokens: int
    samples: bool
    """Whether a token is sampled after the chunk, because the request's last token is in it."""
    draft: Draft = NO_DRAFT
    """Draft tokens at the end of the chunk. They aren't part of the request yet."""

    @property
    def end(self) -> int:
        """Position in the sequence after the last token of the chunk."""
        return self.start + self.num_tokens

    @property
    def num_certain_tokens(self) -> int:
        """Number of the chunk's tokens that aren't draft tokens."""
        return self.num_tokens - len(self.draft)

    @property
    def num_samples(self) -> int:
        """Number of tokens to sample: after the request's last token and after each draft token.

        0 if the chunk doesn't contain the request's last token.
        """
        return 1 + len(self.draft) if self.samples else 0

    @property
    def is_prompt(self) -> bool:
        """Whether the chunk has tokens besides the output tokens that the last step appended."""
        return self.num_certain_tokens > self.request.num_new_tokens

    def without_draft(self) -> "Chunk":
        """Return the chunk without its draft."""
        return replace(self, num_tokens=self.num_certain_tokens, draft=NO_DRAFT)

    def token_ids(self) -> list[int]:
        """Return the tokens of the chunk."""
        certain = self.request.token_ids(self.start, self.start + self.num_certain_tokens)
        return [*certain, *self.draft.token_ids]


def step_size(chunks: Sequence[Chunk]) -> StepSize:
    """Return the size of a step that computes `chunks`."""
    prompts = [chunk for chunk in chunks if chunk.is_prompt]
    num_prompt_tokens = sum(chunk.num_tokens for chunk in prompts)
    pairs = sum(chunk.num_tokens * (chunk.start + chunk.num_tokens / 2) for chunk in prompts)
    return StepSize(
        num_decodes=sum(chunk.num_tokens for chunk in chunks) - num_prompt_tokens,
        num_prompt_tokens=num_prompt_tokens,
        context=pairs / max(1, num_prompt_tokens),
    )


def split(chunks: Sequence[Chunk], max_tokens: int) -> tuple[list[Chunk], list[Chunk]]:
    """Split a step's chunks into the first `max_tokens` tokens and the rest.

    One chunk may be cut in two. Its first part samples nothing, and must be computed before its
    second part. A chunk that doesn't fit as a whole loses its draft.
    """
    first: list[Chunk] = []
    for index, whole in enumerate(chunks):
        chunk = whole if whole.num_tokens <= max_tokens else whole.without_draft()
        if chunk.num_tokens > max_tokens:
            cut = chunk.start + max_tokens
            head = [Chunk(chunk.request, chunk.start, max_tokens, samples=False)] * (max_tokens > 0)
            tail = Chunk(chunk.request, cut, chunk.num_tokens - max_tokens, chunk.samples)
            return first + head, [tail, *chunks[index + 1 :]]
        first.append(chunk)
        max_tokens -= chunk.num_tokens
    return first, []


class Scheduler:
    """Schedules waiting and running requests into steps."""

    def __init__(
        self, blocks: BlockManager, *, max_num_seqs: int, max_num_batched_tokens: int
    ) -> None:
        self.blocks = blocks
        self.max_num_seqs = max_num_seqs
        self.max_num_batched_tokens = max_num_batched_tokens
        self.waiting: deque[Request] = deque()
        """Waiting requests that generate tokens."""
        self.inputs: deque[Request] = deque()
        """Waiting requests for embeddings and scores. They start once `waiting` is empty."""
        self.preemptible: deque[Request] = deque()
        """Waiting preemptible requests. They start once `waiting` and `inputs` are empty."""
        self.running: list[Request] = []
        self.pace = Pace()
        self.num_preemptions = 0
        self.num_cached_tokens = 0
        """Number of tokens reused from the prefix cache since the start."""

    @property
    def requests(self) -> Iterator[Request]:
        """All unfinished requests, running ones first."""
        yield from self.running
        yield from self.waiting
        yield from self.inputs
        yield from self.preemptible

    @property
    def num_waiting(self) -> int:
        """Number of waiting requests."""
        return len(self.waiting) + len(self.inputs) + len(self.preemptible)

    def add(self, request: Request) -> None:
        """Append a request to its waiting queue."""
        self._queue_of(request).append(request)

    def find(self, request_id: RequestId) -> Request | None:
        """Return the unfinished request with this id, or None."""
        return next((r for r in self.requests if r.id == request_id), None)

    def finish(self, request: Request) -> None:
        """End a waiting or running request and free its blocks."""
        if request.status is RequestStatus.RUNNING:
            self.running.remove(request)
        else:
            self._queue_of(request).remove(request)
        self.blocks.free(request)
        request.status = RequestStatus.FINISHED

    def restart(self, request: Request) -> None:
        """Let a running request compute all its tokens again. It waits in front of its queue."""
        self._preempt(request)

    def schedule(self) -> list[Chunk]:
        """Return the chunks of the next step. The list is empty only if no requests remain.

        Allocates the chunks' blocks. May preempt running requests and start waiting ones.
        """
        num_preemptions, num_urgent = self.num_preemptions, self._num_urgent()
        budget = self._budget(num_urgent)
        chunks = self._schedule_running(budget, is_urgent=num_urgent > 0)
        if self.num_preemptions > num_preemptions:
            return chunks  # a request that starts now would be preempted again
        budget -= sum(c.num_tokens for c in chunks)
        return chunks + self._schedule_waiting(budget, is_urgent=num_urgent > 0)

    def _num_urgent(self) -> int:
        """Return how many prompts that aren't preemptible are being computed or could start."""
        running = sum(r.is_prefilling and not r.is_preemptible for r in self.running)
        return running + min(self._num_startable(), len(self.waiting) + len(self.inputs))

    def _budget(self, num_urgent: int) -> int:
        """Return the maximum number of tokens in the next step.

        `Pace` limits how much prompts lengthen a step for the running answers. If prompts are
        urgent, preemptible answers don't count as running answers. Any number of preemptible
        prompts lengthens a step only as much as one prompt, because the next request that isn't
        preemptible must wait for the step.
        """
        prompts = [r for r in self.running if r.is_prefilling]
        num_prompts = num_urgent or min(1, len(prompts) + self._num_startable())
        decodes = [r for r in self.running if not r.is_prefilling]
        patient = [r for r in decodes if r.is_preemptible and num_urgent > 0]
        num_patient = sum(r.num_new_tokens for r in patient)
        num_others = sum(r.num_new_tokens for r in decodes) - num_patient
        max_tokens = num_patient + self.pace.max_tokens(
            num_others,
            num_prompts=num_prompts,
            context=prompts[0].num_computed_tokens if prompts else 0,
            limit=self.max_num_batched_tokens,
        )
        return min(max_tokens, self.max_num_batched_tokens)

    def _num_startable(self) -> int:
        """Estimate how many waiting requests could start if steps had no token budget."""
        queue = self._first_queue
        if not queue or not self.blocks.can_allocate(queue[0], queue[0].num_tokens):
            return 0
        return min(self.num_waiting, self.max_num_seqs - len(self.running))

    def _schedule_running(self, budget: int, *, is_urgent: bool) -> list[Chunk]:
        chunks: list[Chunk] = []
        # The sort is stable: decodes first, then prefills, each in order of arrival.
        for request in sorted(self.running, key=lambda r: r.is_prefilling * (1 + r.is_preemptible)):
            if budget == 0:
                break
            if request.status is not RequestStatus.RUNNING:
                continue  # preempted earlier in this loop
            if is_urgent and request.is_preemptible and request.is_prefilling:
                continue  # it would make the step longer for the urgent prompts
            self.num_cached_tokens += self.blocks.reuse(request)
            chunk = self._next_chunk(request, budget)
            if self._allocate(request, chunk.end):
                chunks.append(chunk)
                budget -= chunk.num_tokens
        # A request may have been preempted for an older one after its chunk was added.
        return [c for c in chunks if c.request.status is RequestStatus.RUNNING]

    def _allocate(self, request: Request, num_tokens: int) -> bool:
        """Allocate blocks for the request's first `num_tokens` tokens.

        Preempts running requests if too few blocks are free. Returns False if `request` itself was
        preempted.
        """
        while not self.blocks.can_allocate(request, num_tokens):
            preemptible = (other for other in reversed(self.running) if other.is_preemptible)
            victim = next(preemptible, self.running[-1])
            self._preempt(victim)
            if victim is request:
                return False
        self.blocks.allocate(request, num_tokens)
        return True

    def _preempt(self, request: Request) -> None:
        self.running.remove(request)
        self.blocks.free(request)
        request.status = RequestStatus.WAITING
        self._queue_of(request).appendleft(request)
        self.num_preemptions += 1

    def _schedule_waiting(self, budget: int, *, is_urgent: bool) -> list[Chunk]:
        chunks: list[Chunk] = []
        while budget > 0 and len(self.running) < self.max_num_seqs:
            queue = self._first_queue
            if not queue or (is_urgent and queue is self.preemptible):
                break
            request = queue[0]
            num_cached = self.blocks.reuse(request)
            # Blocks are allocated for all tokens at once. Otherwise two long prompts could each
            # hold half of the cache and preempt each other forever.
            if not self.blocks.can_allocate(request, request.num_tokens):
                self.blocks.free(request)
                break
            queue.popleft()
            self.blocks.allocate(request, request.num_tokens)
            self.num_cached_tokens += num_cached
            request.status = RequestStatus.RUNNING
            self.running.append(request)
            chunk = self._next_chunk(request, budget)
            chunks.append(chunk)
            budget -= chunk.num_tokens
        return chunks

    @property
    def _first_queue(self) -> deque[Request]:
        """The queue whose first request starts next. It is empty if no request waits."""
        return self.waiting or self.inputs or self.preemptible

    def _queue_of(self, request: Request) -> deque[Request]:
        if request.is_preemptible:
            return self.preemptible
        is_input = request.embedding is not None or request.is_scoring
        return self.inputs if is_input else self.waiting

    def _next_snapshot(self, request: Request) -> int:
        """Return the number of first tokens that the request's next chunks should compute.

        If recurrent states can be kept for other requests, this is where a prefix ends that other
        requests have, then the end of the last full block before the request's last token, then
        the end of the request. For all other requests, it is the end of the request.
        """
        keeps_states = self.blocks.slots.num_slots and request.cache_key is not None
        if not keeps_states or not request.is_prefilling:
            return request.num_tokens
        size = self.blocks.block_size
        ends = (request.snapshot_at, (request.num_tokens - 1) // size * size, request.num_tokens)
        return next(end for end in ends if end > request.num_computed_tokens)

    def _next_chunk(self, request: Request, budget: int) -> Chunk:
        """Return the largest chunk of at most `budget` tokens.

        If the budget doesn't reach the request's last token, the chunk ends with a block if
        possible.
        """
        start = request.num_computed_tokens
        missing = self._next_snapshot(request) - start
        if missing <= budget and start + missing < request.num_tokens:
            return Chunk(request, start, missing, samples=False)
        if missing <= budget:
            return Chunk(request, start, missing, samples=request.embedding is None)
        cut = (start + budget) // self.blocks.block_size * self.blocks.block_size
        return Chunk(request, start, cut - start if cut > start else budget, samples=False)
