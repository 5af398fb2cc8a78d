"""Tries to serve a tiny random model of one type, as a worker serves a model.

`python -m ops.lab.generate.models.attempt TYPE...` prints one outcome per line, as JSON.
"""

import contextlib
import copy
import json
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForMultimodalLM, PreTrainedModel
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES,
)

from ops.lab.generate.models.outcome import Outcome, Status
from ops.lab.generate.models.score import Scored, scores
from ops.lab.generate.models.tiny_config import tiny_config, tiny_tokenizer
from shared.errors import AdapterRejected, ModelRejected
from worker.engine.config import EngineConfig
from worker.engine.engine import NativeEngine
from worker.lora.base.experts import ROUTER
from worker.lora.base.modules import place_in_layer
from worker.lora.checkpoint.adapter import read_checkpoint
from worker.lora.checkpoint.adapter_files import AdapterFiles
from worker.model.loader import LoadedModel, load_model
from worker.model.loading.architecture import read_config

ARCHITECTURES: dict[str, str] = {
    **MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES,
    **MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
}
"""Name of the class of transformers for each model type that generates text.

If a type has a class for text alone, that class is used.
"""
_MAX_WEIGHTS = 20_000_000
"""Maximum number of weights of a tiny model.

If a model has more, `tiny_config` has missed a field that it should shrink.
"""
TOLERANCE = 1e-3
"""Largest difference of log-probabilities between the engine and transformers, in float32."""
_MAX_REASON = 240
_STEP_TOKENS = 16  # less than a prompt, so that prompts are computed in several steps


class _Ended(Exception):
    """Raised to end an attempt with a status and a reason, before the model is served."""

    def __init__(self, status: Status, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


def attempt(model_type: str) -> Outcome:
    """Save a tiny model of this type, load it, and serve it alone and with an adapter."""
    status, reason, adapters = Status.SERVED, "", ""
    try:
        with tempfile.TemporaryDirectory() as folder:
            adapters = _attempt(model_type, Path(folder))
    except _Ended as error:
        status, reason = error.status, error.reason
    except Exception as error:  # noqa: BLE001  (the page lists unexpected errors, too)
        status, reason = Status.FAILED, _one_line(error)
    return Outcome(
        model_type=model_type,
        architecture=ARCHITECTURES[model_type],
        status=status,
        reason=reason,
        adapters=adapters,
    )


def _attempt(model_type: str, folder: Path) -> str:
    """Return a list, as text, of the modules that adapters can change.

    Raises:
        _Ended: the model can't be built or isn't served.
    """
    base = folder / "base"
    config = _built(lambda: save_config(base, model_type))
    _accepted(base, lambda: read_config(str(base), base))
    reference: PreTrainedModel = _built(lambda: save_model(base, config))
    loaded: LoadedModel = _accepted(
        base, lambda: load_model(str(base), dtype="float32", device="cpu")
    )
    return _served(loaded, reference, folder / "adapter")


def _built(build: Callable[[], Any]) -> Any:
    try:
        return build()
    except Exception as error:  # transformers raises any type
        raise _Ended(Status.NOT_BUILT, _one_line(error)) from error


def _accepted(base: Path, load: Callable[[], Any]) -> Any:
    try:
        return load()
    except ModelRejected as error:
        reason = str(error).removeprefix(f"--model {base}: ").partition("; ")[0]
        raise _Ended(Status.REFUSED, shortened(reason)) from error


def save_config(base: Path, model_type: str, *, for_vllm: bool = False) -> Any:
    """Save the configuration and the tokenizer of a tiny model; see `tiny_config`."""
    config = tiny_config(model_type, for_vllm=for_vllm)
    config.save_pretrained(base)
    tiny_tokenizer().save_pretrained(base)
    return config


def save_model(base: Path, config: Any) -> PreTrainedModel:
    """Save a random float32 model of this configuration, and return it.

    Raises:
        ValueError: the model has more than `_MAX_WEIGHTS` weights.
    """
    with torch.device("meta"):
        num_weights = sum(p.numel() for p in _from_config(config).parameters())
    if num_weights > _MAX_WEIGHTS:
        raise ValueError(f"the tiny model has {num_weights:,} weights")
    torch.manual_seed(0)
    model = _from_config(config)
    for parameter in model.parameters():
        if parameter.dim() == 1:  # norms and biases start as 1 and 0, and such values hide mistakes
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model(input_ids=torch.arange(3, 20)[None], use_cache=False)
    model.save_pretrained(base)
    config.save_pretrained(base)  # some models save only the part of the config for text
    return model


def _from_config(config: Any) -> PreTrainedModel:
    is_causal = config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    auto_class = AutoModelForCausalLM if is_causal else AutoModelForMultimodalLM
    model: PreTrainedModel = auto_class.from_config(config, attn_implementation="eager")
    return model.eval().float().requires_grad_(False)


def _served(loaded: LoadedModel, reference: PreTrainedModel, folder: Path) -> str:
    linears = [name for name in loaded.base.linears if name != loaded.base.head]
    experts = sorted({place_in_layer(name) for name in loaded.base.experts})
    choices = {
        "all linears": linears,
        # PEFT refuses adapters on these linears of state spaces.
        "all linears but out_proj": [n for n in linears if not n.endswith(".out_proj")],
        # In some models with experts, PEFT treats other linears as experts because of their names.
        "linears of attention": [n for n in linears if "attn" in n and not n.endswith("gate_proj")],
    }
    attempts = [(what, names, experts) for what, names in choices.items()]
    attempts += [(what, names, []) for what, names in choices.items() if experts]
    for number, (what, names, parameters) in enumerate(attempts):
        try:
            _compare(loaded, reference, names, parameters, folder / str(number))
        except (AdapterRejected, ValueError):
            if number == len(attempts) - 1:
                raise
        else:
            return _adaptable(loaded, what, parameters)
    raise AssertionError


def _compare(
    loaded: LoadedModel,
    reference: PreTrainedModel,
    targets: Sequence[str],
    parameters: Sequence[str],
    folder: Path,
) -> None:
    """Check the engine's log-probabilities for the base model and an adapter.

    The adapter is on the linears `targets`, and on the weights of experts named `parameters`.

    Raises:
        _Ended: they differ from those that transformers and PEFT compute.
        AdapterRejected: the adapter isn't served.
        ValueError: PEFT can't make such an adapter.
    """
    adapted = _save_adapter(folder, copy.deepcopy(reference), targets, parameters, loaded)
    config = EngineConfig(
        max_num_batched_tokens=_STEP_TOKENS, kv_cache_bytes=8 << 20, adapter_bytes=64 << 20
    )
    engine = NativeEngine(loaded, config)
    checked = read_checkpoint("a", AdapterFiles(folder), engine.base, dtype=loaded.dtype)
    engine.add_adapter(checked)
    base, tuned = scores(engine, checked.version)
    for scored, model, name in ((base, reference, "base model"), (tuned, adapted, "adapter")):
        if not (gap := deviation(scored, model)) <= TOLERANCE:
            reason = f"log-probabilities of the {name} deviate by {gap:.2g}"
            raise _Ended(Status.DIFFERS, reason)


def _save_adapter(
    folder: Path,
    base: PreTrainedModel,
    targets: Sequence[str],
    parameters: Sequence[str],
    loaded: LoadedModel,
) -> Any:
    """Save a random adapter, and return `base` with this adapter. See `_compare`."""
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=8,
        lora_alpha=8,
        target_modules=list(targets),
        target_parameters=list(parameters) or None,
        fan_in_fan_out=bool(loaded.base.conv1d),
    )
    adapted = randomise(get_peft_model(base, config))
    adapted.save_pretrained(folder)
    return adapted


@torch.no_grad()
def randomise(adapted: Any) -> Any:
    """Give the adapter of a model random weights, and return the model, ready to answer."""
    generator = torch.Generator().manual_seed(1)
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            parameter.normal_(std=0.1, generator=generator)
    return adapted.eval()


@torch.inference_mode()
def deviation(scored: Scored, model: Any) -> float:
    """Return the largest difference between the engine's log-probabilities and the model's."""
    ids = torch.tensor([scored.token_ids])
    logits: Tensor = model(input_ids=ids, use_cache=False).logits[0]
    expected = logits.float().log_softmax(-1)[:-1].gather(-1, ids[0, 1:, None])[:, 0]
    return float((expected - torch.tensor(scored.logprobs)).abs().max())


def _adaptable(loaded: LoadedModel, linears: str, parameters: Sequence[str]) -> str:
    base = loaded.base
    experts = []
    if parameters:
        routers = any(weight.parameter == ROUTER for weight in base.experts.values())
        experts = ["experts", *(["router"] if routers else [])]
    elif any("expert" in name for name, _ in loaded.model.named_parameters()):
        linears = linears.replace("all linears", "all linears but experts'")
    elif base.all_linear - base.linears.keys():
        linears = linears.replace("all", "some")
    tables = ["embedding"] * bool(base.embedding) + ["head"] * bool(base.head)
    return ", ".join([linears, *experts, *tables])


def _one_line(error: BaseException) -> str:
    return shortened(f"{type(error).__name__}: {' '.join(str(error).split())}")


def shortened(text: str) -> str:
    """Return the text, cut to `_MAX_REASON` characters."""
    return text if len(text) <= _MAX_REASON else f"{text[:_MAX_REASON]}..."


def main(model_types: Sequence[str]) -> None:
    """Try each type and print its outcome."""
    warnings.simplefilter("ignore")
    for model_type in model_types:
        with contextlib.redirect_stdout(sys.stderr):  # stdout is for outcomes only
            outcome = attempt(model_type)
        print(json.dumps(asdict(outcome)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
