"""Decodes sequences in steps, as the engine does."""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from shared.protocol.ids import AdapterVersion
from worker.engine.batch import build_step
from worker.engine.model_runner import ModelRunner
from worker.engine.request import ChoiceSampling, Request, RequestId, RequestStatus
from worker.engine.scheduler import Chunk, Scheduler

UNBOUNDED = 1 << 30
GREEDY = ChoiceSampling(seed=0, temperature=0.0)


def random_request(
    number: int, num_tokens: int, vocab_size: int, version: AdapterVersion | None
) -> Request:
    """Return a greedy request with a random prompt. `number` seeds the random generator."""
    generator = random.Random(number)
    return Request(
        id=RequestId(f"{number}:0"),
        prompt_ids=[generator.randrange(vocab_size) for _ in range(num_tokens)],
        version=version,
        sampling=replace(GREEDY, seed=number),
        max_tokens=UNBOUNDED,
    )


class Decoding:
    """Sequences that decode one token per step.

    Their prompts are marked as computed, so that no time is spent on prefill. The KV cache's
    current contents serve as the prompts' keys and values.
    """

    def __init__(
        self,
        runner: ModelRunner,
        scheduler: Scheduler,
        requests: Sequence[Request],
        device: torch.device,
    ) -> None:
        self._runner, self._scheduler, self._device = runner, scheduler, device
        self._num_sequences = len(requests)
        for request in requests:
            scheduler.blocks.allocate(request, len(request.prompt_ids))
            request.status = RequestStatus.RUNNING
            request.num_computed_tokens = len(request.prompt_ids) - 1
            scheduler.running.append(request)

    def step(self) -> None:
        """Compute the next token of all sequences: scheduler, model and sampler."""
        results = self._runner.run(self._scheduler.schedule())
        assert len(results) == self._num_sequences, "a step left out sequences"
        for computed in results:
            (sample,) = computed.samples
            assert sample.token >= 0, "the model gave no finite logits"
            request = computed.chunk.request
            request.num_computed_tokens = computed.chunk.end
            request.output_ids.append(sample.token)

    def forward(self) -> Callable[[], Tensor]:
        """Return a function that runs the forward pass of one step, always on the same tensors."""
        return forward(self._runner, self._scheduler.schedule(), self._device)

    def launch(self) -> None:
        """Build the batch of one step and launch its forward pass. Doesn't wait for the device."""
        self.forward()()

    def end(self) -> None:
        """Free the sequences' memory."""
        for request in list(self._scheduler.running):
            self._scheduler.finish(request)


def forward(
    runner: ModelRunner, chunks: Sequence[Chunk], device: torch.device
) -> Callable[[], Tensor]:
    """Return a function that runs the forward pass of a step with `chunks`."""
    step = build_step(chunks, device)
    # Private, because the engine never runs the model without the sampler.
    return torch.inference_mode()(lambda: runner._forward(step))
