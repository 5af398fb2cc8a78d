"""Which tokens of which requests the next step computes.

One rule: a request's computed tokens catch up with its tokens. A step has a token budget, which
goes to decodes first, then to unfinished prefills, then to waiting requests in order. When KV
blocks run out, the youngest running request is preempted and later recomputed; the oldest is
never preempted, so there is always progress.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from worker.engine.block_manager import BlockManager
from worker.engine.pace import Pace, StepSize
from worker.engine.request import Request, RequestId, RequestStatus


@dataclass(frozen=True, slots=True)
class Chunk:
    """The tokens of one request that a step computes."""

    request: Request
    start: int
    num_tokens: int
    samples: bool
    """Whether the chunk reaches the last token, so that a new one is drawn."""

    @property
    def end(self) -> int:
        """Computed tokens of the request once the step is done."""
        return self.start + self.num_tokens


def step_size(chunks: Sequence[Chunk]) -> StepSize:
    """What a step of `chunks` computes."""
    prompts = [chunk for chunk in chunks if chunk.num_tokens > 1]
    num_prompt_tokens = sum(chunk.num_tokens for chunk in prompts)
    pairs = sum(chunk.num_tokens * (chunk.start + chunk.num_tokens / 2) for chunk in prompts)
    return StepSize(
        num_decodes=len(chunks) - len(prompts),
        num_prompt_tokens=num_prompt_tokens,
        context=pairs / max(1, num_prompt_tokens),
    )


class Scheduler:
    """Orders the waiting and running requests into steps."""

    def __init__(
        self, blocks: BlockManager, *, max_num_seqs: int, max_num_batched_tokens: int
    ) -> None:
        self.blocks = blocks
        self.max_num_seqs = max_num_seqs
        self.max_num_batched_tokens = max_num_batched_tokens
        self.waiting: deque[Request] = deque()
        self.running: list[Request] = []
        self.pace = Pace()
        self.num_preemptions = 0
        self.num_cached_tokens = 0
        """Tokens that other requests had computed, since the start."""

    @property
    def requests(self) -> Iterator[Request]:
        """Every unfinished request."""
        yield from self.running
        yield from self.waiting

    def add(self, request: Request) -> None:
        """Queue a request behind the waiting ones."""
        self.waiting.append(request)

    def find(self, request_id: RequestId) -> Request | None:
        """The unfinished request of this id, if there is one."""
        return next((r for r in self.requests if r.id == request_id), None)

    def finish(self, request: Request) -> None:
        """End a request, whatever its state, and take its blocks back."""
        if request.status is RequestStatus.RUNNING:
            self.running.remove(request)
        else:
            self.waiting.remove(request)
        self.blocks.free(request)
        request.status = RequestStatus.FINISHED

    def schedule(self) -> list[Chunk]:
        """The chunks of the next step; empty only when there is no request.

        Allocates their blocks; may preempt requests and start waiting ones.
        """
        num_preemptions = self.num_preemptions
        budget = self._budget()
        chunks = self._schedule_running(budget)
        if self.num_preemptions > num_preemptions:
            return chunks  # starting one now would only preempt it again
        budget -= sum(c.num_tokens for c in chunks)
        return chunks + self._schedule_waiting(budget)

    def _budget(self) -> int:
        """Tokens of the next step."""
        prompts = [r for r in self.running if r.is_prefilling]
        num_decodes = len(self.running) - len(prompts)
        return self.pace.max_tokens(
            num_decodes,
            num_prompts=len(prompts) + self._num_startable(),
            context=prompts[0].num_computed_tokens if prompts else 0,
            limit=self.max_num_batched_tokens,
        )

    def _num_startable(self) -> int:
        """How many of the waiting requests are held up by the step's size alone, about."""
        if not self.waiting or not self.blocks.can_allocate(
            self.waiting[0], self.waiting[0].num_tokens
        ):
            return 0
        return min(len(self.waiting), self.max_num_seqs - len(self.running))

    def _schedule_running(self, budget: int) -> list[Chunk]:
        chunks: list[Chunk] = []
        # Stable sort: decodes (one token short) first, each kind in order of arrival.
        for request in sorted(self.running, key=lambda r: r.is_prefilling):
            if budget == 0:
                break
            if request.status is not RequestStatus.RUNNING:
                continue  # preempted for an earlier one of this very loop
            self.num_cached_tokens += self.blocks.reuse(request)
            chunk = self._next_chunk(request, budget)
            if self._make_room(request, chunk.end):
                chunks.append(chunk)
                budget -= chunk.num_tokens
        # A request that got its chunk early may have been preempted for an older one since.
        return [c for c in chunks if c.request.status is RequestStatus.RUNNING]

    def _make_room(self, request: Request, num_tokens: int) -> bool:
        """Allocate blocks, preempting younger requests; False if `request` had to go itself."""
        while not self.blocks.can_allocate(request, num_tokens):
            youngest = self.running[-1]
            self._preempt(youngest)
            if youngest is request:
                return False
        self.blocks.allocate(request, num_tokens)
        return True

    def _preempt(self, request: Request) -> None:
        self.running.remove(request)
        self.blocks.free(request)
        request.status = RequestStatus.WAITING
        self.waiting.appendleft(request)
        self.num_preemptions += 1

    def _schedule_waiting(self, budget: int) -> list[Chunk]:
        chunks: list[Chunk] = []
        while self.waiting and budget > 0 and len(self.running) < self.max_num_seqs:
            request = self.waiting[0]
            num_cached = self.blocks.reuse(request)
            # Room for all its tokens, not just this chunk: else two long prompts could each
            # hold half of the cache and preempt each other for ever.
            if not self.blocks.can_allocate(request, request.num_tokens):
                self.blocks.free(request)
                break
            self.waiting.popleft()
            self.blocks.allocate(request, request.num_tokens)
            self.num_cached_tokens += num_cached
            request.status = RequestStatus.RUNNING
            self.running.append(request)
            chunk = self._next_chunk(request, budget)
            chunks.append(chunk)
            budget -= chunk.num_tokens
        return chunks

    def _next_chunk(self, request: Request, budget: int) -> Chunk:
        """As much as the budget allows; a prompt is cut between blocks, so that they are shared."""
        start = request.num_computed_tokens
        missing = request.num_tokens - start
        if missing <= budget:
            return Chunk(request, start, missing, samples=True)
        cut = (start + budget) // self.blocks.block_size * self.blocks.block_size
        return Chunk(request, start, cut - start if cut > start else budget, samples=False)
