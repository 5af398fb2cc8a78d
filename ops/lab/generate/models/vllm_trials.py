"""Tries the vLLM engine, on CPUs, with the model types that the native engine refuses.

`python -m ops.lab.generate.models.vllm_trials` takes about half an hour, stores the outcomes, and
writes the page. If arguments name model types, it tries only those. It needs `make vllm`.
"""

import asyncio
import copy
import json
import re
import sys
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model

from ops.lab.generate.models.attempt import (
    ARCHITECTURES,
    TOLERANCE,
    deviation,
    randomise,
    save_config,
    save_model,
    shortened,
)
from ops.lab.generate.models.outcome import (
    FILE,
    VLLM_FILE,
    Outcome,
    Outcomes,
    Status,
    read_outcomes,
    write_outcomes,
)
from ops.lab.generate.models.page import write_page
from ops.lab.generate.models.score import Scored
from worker.engine_vllm.environment import FOLDER

_LIMIT_S = 180.0
_AT_ONCE = 2
_BFLOAT16_ALONE = "requires BF16"
"""Text by which vLLM refuses the types that it computes on CPUs only in bfloat16."""
_BFLOAT16_GAP = 0.3
"""Largest accepted difference of log-probabilities in bfloat16, which has 8 significant bits."""
_NO_PROCESSOR = "--model M: AutoProcessor: "
_Models = tuple[torch.nn.Module, torch.nn.Module | None]
"""A model of transformers, and the same model with an adapter; None if PEFT can't make one."""


async def _attempt(model_type: str) -> Outcome:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            models = _build(model_type, folder)
        except Exception as error:  # noqa: BLE001  (transformers raises any type)
            return _outcome(model_type, Status.NOT_BUILT, f"{type(error).__name__}: {error}")
        answer = await _answer(folder, "float32")
        if _BFLOAT16_ALONE in str(answer):
            found = _judged(model_type, await _answer(folder, "bfloat16"), models, _BFLOAT16_GAP)
            return replace(found, adapters=found.adapters and f"{found.adapters}, in bfloat16")
    return _judged(model_type, answer, models, TOLERANCE)


def _judged(
    model_type: str, answer: dict[str, Any] | str, models: _Models, tolerance: float
) -> Outcome:
    if isinstance(answer, str):
        return _outcome(model_type, Status.FAILED, answer)
    if refusal := answer["refusal"]:
        if refusal.startswith(_NO_PROCESSOR):
            return _outcome(model_type, Status.NOT_BUILT, "tiny models have no image processor")
        return _outcome(model_type, Status.REFUSED, refusal)
    refusal, (base, adapted) = answer["adapters_refusal"], models
    for scored, model in (("base", base), ("tuned", base if refusal else adapted)):
        gap = deviation(Scored(**answer[scored]), model)
        if not gap <= tolerance:
            which = "base model" if model is base else "adapter"
            reason = f"log-probabilities of the {which} deviate by {gap:.2g}"
            return _outcome(model_type, Status.DIFFERS, reason)
    adapters = f"no adapter: {_stated(refusal)}" if refusal else "adapters"
    return _outcome(model_type, Status.SERVED, adapters=shortened(adapters))


def _outcome(model_type: str, status: Status, reason: str = "", adapters: str = "") -> Outcome:
    return Outcome(
        model_type=model_type,
        architecture=ARCHITECTURES[model_type],
        status=status,
        reason=shortened(_stated(reason)),
        adapters=adapters,
    )


def _stated(reason: str) -> str:
    """Return the part of vLLM's reason that isn't about this trial, in one line."""
    reason = re.sub(r"/tmp/\S+", "it", " ".join(reason.split()))
    reason = reason.removeprefix("--model M: ").removeprefix("vLLM: ")
    return reason.removeprefix("Value error, ").partition(" Supported architectures: ")[0]


def _build(model_type: str, folder: Path) -> _Models:
    """Save a tiny model and an adapter on all its linears.

    Return the model without the adapter and the model with the adapter. If PEFT can't make an
    adapter, the latter is None.
    """
    base = save_model(folder / "base", save_config(folder / "base", model_type, for_vllm=True))
    try:
        lora = LoraConfig(task_type="CAUSAL_LM", r=8, lora_alpha=8, target_modules="all-linear")
        adapted = randomise(get_peft_model(copy.deepcopy(base), lora))
        adapted.save_pretrained(folder / "adapter")
    except Exception:  # noqa: BLE001  (PEFT raises any type for models that it doesn't know)
        return base, None
    return base, adapted


async def _answer(folder: Path, dtype: str) -> dict[str, Any] | str:
    """Return the fields of the `Answer` of vLLM's process, or why there is none."""
    log = folder / "log"
    with log.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            str(Path(FOLDER) / "bin" / "python"),
            *("-m", "ops.lab.generate.models.vllm_answer", str(folder), dtype),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=file,
            stderr=file,
        )
    try:
        status = await asyncio.wait_for(process.wait(), _LIMIT_S)
    except TimeoutError:
        process.kill()
        await process.wait()
        return f"takes more than {_LIMIT_S:.0f} s"
    text = log.read_text(errors="replace")
    answers = [line for line in text.splitlines() if line.startswith('{"refusal"')]
    cause = _cause(text)
    if not answers:
        return cause or f"ends the process with status {status}"
    fields: dict[str, Any] = json.loads(answers[-1])
    if "See root cause above" in fields["refusal"]:
        fields["refusal"] = cause or fields["refusal"]
    return fields


def _cause(log: str) -> str:
    """Return the first error of vLLM's processes in their log."""
    found = re.search(r"(?:^|\] )([\w.]+(?:Error|Exception): .+)", log, re.MULTILINE)
    return found[1] if found else ""


async def main(model_types: Sequence[str]) -> None:
    """Try `model_types`, or all that the native engine doesn't serve, and store the outcomes."""
    warnings.simplefilter("ignore")
    refused = [o.model_type for o in read_outcomes(FILE).outcomes if o.status is Status.REFUSED]
    stored = read_outcomes(VLLM_FILE).outcomes if model_types else ()
    found = {outcome.model_type: outcome for outcome in stored}
    free = asyncio.Semaphore(_AT_ONCE)

    async def try_one(model_type: str) -> None:
        async with free:
            found[model_type] = outcome = await _attempt(model_type)
        print(model_type, outcome.status, outcome.reason or outcome.adapters, flush=True)

    await asyncio.gather(*(try_one(model_type) for model_type in model_types or refused))
    outcomes = tuple(found[name] for name in sorted(found))
    write_outcomes(Outcomes(version=_vllm_version(), outcomes=outcomes), VLLM_FILE)
    write_page()


def _vllm_version() -> str:
    (info,) = Path(FOLDER).glob("lib/python*/site-packages/vllm*-*.dist-info")
    return info.name.removesuffix(".dist-info").partition("-")[2]


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
