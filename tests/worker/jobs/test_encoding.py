"""Which prompts are tokenized in a thread."""

import threading
from typing import Any

import pytest
from queue_support import make_job

from shared.protocol.jobs import Job
from worker.engine_simulated.text import SimulatedTokenizer
from worker.jobs.encoding import SHORT_BYTES, encode
from worker.text.interface import EncodedPrompt
from worker.text.prompt_style import BASE_STYLE, PromptStyle


class RecordingTokenizer(SimulatedTokenizer):
    """Tokenizer that records the thread of its last call."""

    thread: int | None = None

    def encode(
        self, job: Job, style: PromptStyle = BASE_STYLE, text: str | None = None
    ) -> list[EncodedPrompt]:
        self.thread = threading.get_ident()
        return super().encode(job, style)


@pytest.mark.parametrize(
    ("fields", "is_in_thread"),
    [
        ({"prompts": ("short",)}, False),
        ({"prompts": ("x" * SHORT_BYTES,)}, True),
        ({"prompts": ("short",) * SHORT_BYTES}, True),
        ({"prompts": (), "messages": ({"role": "user", "content": "x" * SHORT_BYTES},)}, True),
    ],
)
async def test_only_long_inputs_are_tokenized_in_a_thread(
    fields: dict[str, Any], is_in_thread: bool
) -> None:
    tokenizer = RecordingTokenizer()
    job = make_job("base@1", **fields)
    prompts = await encode(tokenizer, job, BASE_STYLE)
    assert prompts == SimulatedTokenizer().encode(job)
    assert (tokenizer.thread != threading.get_ident()) == is_in_thread
