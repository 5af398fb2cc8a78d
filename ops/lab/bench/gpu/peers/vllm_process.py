"""The process that measures vLLM: `python -m ops.lab.bench.gpu.peers.vllm_process`.

It prints one line of JSON for each batch size.
"""

import importlib
import json
import random
import sys
import time
from typing import Any

NEW_TOKENS = 64
"""Number of decode steps for each figure."""
MEMORY_SHARE = 0.85
"""Share of the GPU's memory that vLLM may use.

The process that started this one still holds some of the rest.
"""


def main(folder: str, batches: str, context: str, vocab_size: str) -> None:
    """Measure a model with random weights, once for each batch size in `batches`.

    `folder` contains the model's configuration.
    """
    vllm: Any = importlib.import_module("vllm")  # not a dependency
    sizes = [int(size) for size in batches.split(",")]
    engine = vllm.LLM(
        model=folder,
        load_format="dummy",
        skip_tokenizer_init=True,
        max_model_len=2 * (int(context) + NEW_TOKENS),
        max_num_seqs=max(sizes),
        gpu_memory_utilization=MEMORY_SHARE,
        enable_prefix_caching=False,
    )
    for size in sizes:
        step_ms = _step_ms(vllm, engine, size, int(context), int(vocab_size))
        figures = {"batch": size, "step_ms": step_ms, "tokens_per_s": 1000 * size / step_ms}
        print(json.dumps(figures), flush=True)


def _step_ms(vllm: Any, engine: Any, batch: int, context: int, vocab_size: int) -> float:
    """Return the time of a decode step in ms, from the durations of long and short answers."""
    generator = random.Random(batch)
    prompts = [
        {"prompt_token_ids": [generator.randrange(vocab_size) for _ in range(context)]}
        for _ in range(batch)
    ]

    def seconds(new_tokens: int) -> float:
        sampling = vllm.SamplingParams(
            max_tokens=new_tokens, temperature=0.0, ignore_eos=True, detokenize=False
        )
        start = time.perf_counter()
        engine.generate(prompts, sampling, use_tqdm=False)
        return time.perf_counter() - start

    seconds(2)
    short = seconds(2)
    return 1000 * (seconds(2 + NEW_TOKENS) - short) / NEW_TOKENS


if __name__ == "__main__":
    main(*sys.argv[1:])
