"""Adapters on experts and routers answer as transformers + PEFT do, in mixed batches."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from adapter_folders import change_tensors
from engine_requests import make_request
from engines import engine_of, load, outputs_of, random_prompt, tokens_of
from mixtures import REPRESENTATIVE, TYPES, mixture_model, parameters
from peft import LoraConfig
from reference import check_greedy_along, check_logprobs_along, logits_along, with_adapter
from safetensors.torch import save_file
from slow_cases import slow_unless
from tiny import save_adapter
from transformers.integrations import moe

from shared.errors import AdapterRejected
from worker.engine.request import ChoiceSampling, Request
from worker.model.loader import LoadedModel

NAMES = ["base", "experts", "all"]
NUM_TOKENS = 16


@dataclass
class Case:
    """A mixture of experts, and adapters on its experts."""

    model_type: str
    loaded: LoadedModel
    adapters: dict[str, Path]

    def model_of(self, name: str) -> Any:
        """Return PEFT's model with an adapter, or the base."""
        base = mixture_model(self.model_type)
        return base if name == "base" else with_adapter(base, self.adapters[name])


@pytest.fixture(
    scope="module", params=slow_unless(lambda one: one in REPRESENTATIVE, [(one,) for one in TYPES])
)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    model_type = request.param
    loaded = load(mixture_model(model_type))
    named = parameters(loaded.base)
    experts = [name for name in named if "experts" in name]
    assert len(experts) == 2
    configs: dict[str, dict[str, Any]] = {
        "experts": {"r": 9, "lora_alpha": 5, "target_modules": [], "target_parameters": experts},
        "all": {"r": 3, "target_modules": ["q_proj", "o_proj"], "target_parameters": named},
    }
    root = tmp_path_factory.mktemp(model_type)
    adapters = {
        name: save_adapter(
            root / name, base=mixture_model(model_type), seed=seed, scale=0.1, **config
        )
        for seed, (name, config) in enumerate(configs.items())
    }
    return Case(model_type, loaded, adapters)


def requests_of(versions: dict[str, Any]) -> list[tuple[str, Request]]:
    sampling = ChoiceSampling(seed=0, temperature=0.0, logprobs=0)
    return [
        (
            name,
            make_request(
                str(i),
                random_prompt(i, 3 + 7 * i % 40),
                version=versions.get(name),
                sampling=sampling,
                max_tokens=NUM_TOKENS,
            ),
        )
        for i, name in enumerate(NAMES * 5)
    ]


def test_a_mixed_batch_with_chunks_and_preemption_equals_the_reference(case: Case) -> None:
    engine, versions = engine_of(case.loaded, case.adapters, num_blocks=16, budget=23)
    requests = requests_of(versions)
    outputs = outputs_of(engine, [request for _, request in requests])
    # The states of recurrent layers leave room for more blocks.
    assert engine.stats().num_preemptions > 0 or case.loaded.cache.states
    for asked in NAMES:
        model = case.model_of(asked)
        for name, request in requests:
            if name == asked:
                got = tokens_of(outputs[request.id])
                logits = logits_along(model, request.prompt_ids, got)
                logprobs = [o.logprobs.logprob for o in outputs[request.id] if o.logprobs]
                check_greedy_along(logits, got)
                check_logprobs_along(logits, got, logprobs)


def product_by_row(rows: torch.Tensor, weight: torch.Tensor, offs: torch.Tensor) -> torch.Tensor:
    """Multiply each row by its expert's weight, alone. `offs` are the ends of the experts' rows."""
    experts = torch.searchsorted(offs, torch.arange(len(rows)), right=True)
    products = [rows[i : i + 1] @ weight[expert] for i, expert in enumerate(experts)]
    return torch.cat(products) if products else rows @ weight[0]


def test_an_answer_in_bfloat16_has_the_same_bits_alone_and_in_company(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    # With AMX, the bits of torch's own product depend on the number of rows.
    monkeypatch.setattr(moe, "_grouped_mm", product_by_row)
    case = replace(case, loaded=load(mixture_model(case.model_type).to(torch.bfloat16)))

    def answers(numbers: list[int], **options: int) -> dict[Any, Any]:
        engine, versions = engine_of(case.loaded, case.adapters, **options)
        requests = requests_of(versions)
        outputs = outputs_of(engine, [requests[number][1] for number in numbers])
        return {id_: [(o.token_id, o.logprobs) for o in each] for id_, each in outputs.items()}

    # The bits of recurrent layers depend on where the chunks of a prompt end.
    options = {} if case.loaded.cache.states else {"num_blocks": 24, "budget": 23}
    together = answers(list(range(9)), **options)
    for number in range(6):
        assert answers([number], **options)[str(number)] == together[str(number)]


@pytest.fixture
def separate(tmp_path: Path) -> Path:
    """An adapter of qwen3_moe as PEFT saved it with transformers 4: each expert has its tensors."""
    model = mixture_model("qwen3_moe")
    experts = model.model.layers[0].mlp.experts
    num_experts, width = experts.num_experts, experts.down_proj.shape[2]
    hidden, rank = model.config.hidden_size, 4
    generator = torch.Generator().manual_seed(5)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator) * 0.1

    sizes = {
        **{f"mlp.experts.{n}.gate_proj": (hidden, width) for n in range(num_experts)},
        **{f"mlp.experts.{n}.up_proj": (hidden, width) for n in range(num_experts)},
        **{f"mlp.experts.{n}.down_proj": (width, hidden) for n in range(num_experts)},
        "mlp.gate": (hidden, num_experts),
        "self_attn.q_proj": (hidden, model.model.layers[0].self_attn.q_proj.out_features),
    }
    tensors = {}
    for layer in range(model.config.num_hidden_layers):
        for name, (in_features, out_features) in sizes.items():
            start = f"base_model.model.model.layers.{layer}.{name}"
            tensors[f"{start}.lora_A.weight"] = noise(rank, in_features)
            tensors[f"{start}.lora_B.weight"] = noise(out_features, rank)
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    names = ["q_proj", "gate_proj", "up_proj", "down_proj", "gate"]
    config = LoraConfig(task_type="CAUSAL_LM", r=rank, lora_alpha=6, target_modules=names)
    config.save_pretrained(tmp_path)
    return tmp_path


def test_experts_that_are_stored_one_by_one_answer_as_peft_converts_them(separate: Path) -> None:
    engine, versions = engine_of(load(mixture_model("qwen3_moe")), {"all": separate}, budget=23)
    requests = requests_of(versions)
    outputs = outputs_of(engine, [request for _, request in requests])
    model = with_adapter(mixture_model("qwen3_moe"), separate)
    for name, request in requests:
        if name == "all":
            got = tokens_of(outputs[request.id])
            check_greedy_along(logits_along(model, request.prompt_ids, got), got)


def test_experts_without_all_their_parts_are_refused(separate: Path) -> None:
    change_tensors(
        separate, lambda tensors: [tensors.pop(n) for n in list(tensors) if "up_proj" in n]
    )
    with pytest.raises(AdapterRejected, match="have gate_proj, but not up_proj, which the served"):
        engine_of(load(mixture_model("qwen3_moe")), {"all": separate})
