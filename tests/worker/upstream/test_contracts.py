"""What Lorikeet relies on in the names that it borrows. A failure says what upstream changed."""

from pathlib import Path
from typing import Any

import pytest
import torch
from mixtures import mixture_model
from tiny import save_tiny_model, tiny_model, tiny_tokenizer
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    PreTrainedModel,
    T5Config,
)
from transformers.modeling_outputs import CausalLMOutputWithPast

from worker.upstream import model_classes
from worker.upstream.adapter_targets import (
    EMBEDDING_LAYER_NAMES,
    TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING,
)
from worker.upstream.attention import AttentionInterface
from worker.upstream.chat_templates import PreTrainedTokenizerBase
from worker.upstream.experts import (
    ALL_EXPERTS_FUNCTIONS,
    grouped_linear,
    grouped_mm_experts_forward,
)
from worker.upstream.gguf_tokenizers import GGUF_PRE_TOKENIZER_SPLITS
from worker.upstream.linears import Conv1D
from worker.upstream.outputs import BaseModelOutputWithPast, ModelOutput
from worker.upstream.quantisers import (
    ConversionOps,
    HfQuantizer,
    QuantizationConfigMixin,
    register_quantizer,
)
from worker.upstream.tokenizer_files import bytes_to_unicode, import_protobuf

PROMPT = torch.tensor([[3, 5, 7]])


@torch.inference_mode()
def logits_of(model: PreTrainedModel) -> Tensor:
    found: Tensor = model(input_ids=PROMPT).logits
    return found


def test_a_model_calls_the_attention_function_that_is_registered_under_its_name() -> None:
    calls: list[tuple[int, tuple[int, ...], dict[str, Any]]] = []

    def attend(
        module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, **others: Any
    ) -> tuple[Tensor, None]:
        calls.append((module.layer_idx, tuple(query.shape), others))
        return query.transpose(1, 2).contiguous(), None

    model = tiny_model()
    AttentionInterface.register("contract_attention", attend)
    model.set_attn_implementation("contract_attention")
    logits_of(model)
    config = model.config
    head_dim = config.hidden_size // config.num_attention_heads
    shape = (1, config.num_attention_heads, PROMPT.numel(), head_dim)
    assert [call[:2] for call in calls] == [(n, shape) for n in range(config.num_hidden_layers)], (
        "the attention interface no longer gets [1, heads, tokens, head_dim] once for each layer"
    )
    assert "scaling" in calls[0][2], "attention functions no longer get their scale as `scaling`"


def test_a_mixture_calls_the_function_of_experts_that_is_registered_under_its_name() -> None:
    shapes: list[tuple[tuple[int, ...], ...]] = []

    def compute(self: Any, hidden: Tensor, experts: Tensor, weights: Tensor) -> Tensor:
        shapes.append((tuple(hidden.shape), tuple(experts.shape), tuple(weights.shape)))
        result: Tensor = grouped_mm_experts_forward(self, hidden, experts, weights)
        return result

    model = mixture_model("mixtral")
    expected = logits_of(model)
    ALL_EXPERTS_FUNCTIONS.register("contract_experts", compute)
    model.set_experts_implementation("contract_experts")
    assert torch.allclose(logits_of(model), expected, atol=1e-5)
    rows, top = PROMPT.numel(), model.config.num_experts_per_tok
    wanted = ((rows, model.config.hidden_size), (rows, top), (rows, top))
    assert set(shapes) == {wanted}, "functions of experts no longer get [T, hidden], [T, K], [T, K]"


@pytest.mark.parametrize("is_transposed", [False, True])
def test_the_grouped_linear_multiplies_each_group_of_rows_by_its_weight(
    is_transposed: bool,
) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(5, 16, generator=generator)
    weights = torch.randn(2, 8, 16, generator=generator)
    ends = torch.tensor([2, 5], dtype=torch.int32)
    stored = weights.transpose(1, 2).contiguous() if is_transposed else weights
    found = grouped_linear(x, stored, ends, bias=None, is_transposed=is_transposed)
    expected = torch.cat([x[:2] @ weights[0].t(), x[2:] @ weights[1].t()])
    assert torch.allclose(found, expected, atol=1e-4), "`_grouped_linear` computes something else"


def test_the_linear_of_gpt2_stores_its_weight_as_in_by_out() -> None:
    linear = Conv1D(3, 5)  # outputs, inputs
    assert tuple(linear.weight.shape) == (5, 3), "Conv1D no longer stores its weight as [in, out]"


def test_models_return_outputs_of_the_known_classes() -> None:
    assert issubclass(CausalLMOutputWithPast, ModelOutput)
    assert issubclass(BaseModelOutputWithPast, ModelOutput)
    hidden = torch.zeros(1, 2, 3)
    output = BaseModelOutputWithPast(last_hidden_state=hidden)
    assert output[0] is hidden, "the first field of an output is no longer the hidden states"


def test_the_tables_of_classes_are_keyed_by_configuration() -> None:
    assert model_classes.CONFIG_MAPPING["llama"] is LlamaConfig
    assert model_classes.MODEL_FOR_CAUSAL_LM_MAPPING[LlamaConfig] is LlamaForCausalLM
    assert T5Config in model_classes.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING
    assert LlavaConfig in model_classes.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
    assert LlavaConfig in model_classes.MODEL_FOR_MULTIMODAL_LM_MAPPING


def test_a_registered_quantiser_gets_each_weight_while_a_model_is_read(tmp_path: Path) -> None:
    seen: list[str] = []

    class Configuration(QuantizationConfigMixin):  # type: ignore[misc]  # transformers is untyped
        def __init__(self) -> None:
            self.quant_method = "contract"

    class Record(ConversionOps):  # type: ignore[misc]  # transformers is untyped
        def convert(self, input_dict: dict[str, Any], **_: Any) -> dict[str, Any]:
            seen.extend(input_dict)
            return input_dict

    @register_quantizer("contract")
    class Quantiser(HfQuantizer):  # type: ignore[misc]  # transformers is untyped
        is_trainable = False

        def _process_model_before_weight_loading(self, model: Any, **_: Any) -> None: ...

        def param_needs_quantization(self, model: Any, param_name: str, **_: Any) -> bool:
            return param_name.endswith("q_proj.weight")

        def get_quantize_ops(self) -> ConversionOps:
            return Record()

        def postprocess_model(self, model: Any, **_: Any) -> None:
            self.remove_quantization_config(model)

        def is_serializable(self) -> bool:
            return False

    save_tiny_model(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path, quantization_config=Configuration())
    layers = range(model.config.num_hidden_layers)
    names = {f"model.layers.{layer}.self_attn.q_proj.weight" for layer in layers}
    assert set(seen) == names, "a quantiser no longer gets the weights that it asks for, by name"


def test_the_tables_for_other_libraries_tokenizers_are_complete() -> None:
    assert sorted(bytes_to_unicode()) == list(range(256))
    proto = import_protobuf().ModelProto()
    proto.pieces.add(piece="a", score=0.0, type=1)
    assert (proto.trainer_spec.model_type, len(proto.pieces)) == (1, 1)
    assert {"llama-bpe", "qwen2"} <= set(GGUF_PRE_TOKENIZER_SPLITS)


def test_a_tokenizer_without_a_vocabulary_renders_templates() -> None:
    class Renderer(PreTrainedTokenizerBase):  # type: ignore[misc]  # transformers is untyped
        def __init__(self) -> None:
            self.chat_template = None

        @property
        def special_tokens_map(self) -> dict[str, str]:
            return {"eos_token": "</s>"}

    template = "{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}"
    chat = [{"role": "user", "content": "hello"}]
    options = {"chat_template": template, "tokenize": False}
    found = Renderer().apply_chat_template(chat, **options)
    assert found == tiny_tokenizer().apply_chat_template(chat, **options).replace(
        tiny_tokenizer().eos_token, "</s>"
    )


def test_peft_names_the_modules_that_an_adapter_targets_by_default() -> None:
    targets = TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING["llama"]
    assert set(targets) == {"q_proj", "v_proj"}
    assert {"embed_tokens", "lm_head"} <= set(EMBEDDING_LAYER_NAMES)
