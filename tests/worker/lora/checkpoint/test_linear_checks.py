"""Checks of an adapter's files take linear time, and little at the limits of sizes."""

import json
import struct
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from linear_time import assert_linear

from shared.errors import AdapterRejected
from worker.adapters.source.base_names import names_another_base
from worker.lora.base.modules import BaseModules, ModuleShape
from worker.lora.checkpoint.adapter_files import AdapterFiles
from worker.lora.checkpoint.config import MAX_CONFIG_BYTES, parse_config
from worker.lora.checkpoint.header_report import MAX_PROMPT_FILE_BYTES, check_size, report_headers
from worker.lora.checkpoint.manifest import manifest_of
from worker.lora.checkpoint.prompting import MAX_TEMPLATE_CHARS, read_prompting
from worker.lora.checkpoint.safetensors_header import MAX_HEADER_BYTES
from worker.lora.checkpoint.target_modules import trained_modules

LINEARS = [
    *(f"self_attn.{n}_proj" for n in "qkvo"),
    *(f"mlp.{n}_proj" for n in ("gate", "up", "down")),
]
OTHERS = ("self_attn", "mlp", "mlp.act_fn", "input_layernorm", "post_attention_layernorm")
LAYERS = [f"model.layers.{layer}" for layer in range(126)]
SHAPES = {f"{layer}.{name}": ModuleShape(8, 8) for layer in LAYERS for name in LINEARS}
BASE = BaseModules(
    model_type="llama",
    linears=SHAPES,
    conv1d=frozenset(),
    others=dict.fromkeys(
        ["model", "model.norm", *(f"{layer}.{name}" for layer in LAYERS for name in OTHERS)], "X"
    ),
    all_linear=frozenset(SHAPES),
    decoder="model",
)
"""The names of a large model's modules, without its weights."""
Unit = Callable[[int], str]
"""Returns the text of the item with this number."""
FEW = settings(
    max_examples=3,
    deadline=None,
    # Hypothesis traces what it repeats, so a repeated input would take longer.
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
MANY = settings(FEW, max_examples=60)
Q = "base_model.model.model.layers"


def filled(start: str, unit: Unit, end: str, num_bytes: int) -> bytes:
    """Return a text of about `num_bytes` with as many items as fit."""
    items, left = [], num_bytes - len(start) - len(end)
    for number in count():
        item = unit(number)
        left -= len(item) + 1
        if left < 0:
            return f"{start}{','.join(items)}{end}".encode()
        items.append(item)
    raise AssertionError


def check_config(text: bytes) -> None:
    config = parse_config(text, False)
    config.resolve(BASE.names)
    trained = trained_modules(config, BASE)
    for module in trained.targets:
        config.rank(module)
        config.scaling(module)


LIST_FIELDS = (
    *("target_modules", "exclude_modules", "modules_to_save", "layers_pattern"),
    *("layers_to_transform", "trainable_token_indices", "eva_config", "unknown"),
)
OBJECT_FIELDS = ("rank_pattern", "alpha_pattern", "trainable_token_indices", "eva_config")
texts = st.sampled_from(
    [
        *("m{}", "{}", "model.layers.{}.x", "q_proj{}", "a.{}.b"),
        *(".*{}", "(a|b)*{}", "a{{0,9}}{}", "[^{}]"),
    ]
)
values = st.sampled_from(["1", "[]", "{{}}", "null", "1e999", "NaN", '"x"', "[[[[1]]]]", "-0.5"])
list_units = st.one_of(texts.map(lambda text: f'"{text}"'), values, st.just("{}"))
config_lists = st.tuples(st.sampled_from(LIST_FIELDS), list_units, st.just("[]"))
config_objects = st.builds(
    lambda field, text, value: (field, f'"{text}":{value}', "{}"),
    st.sampled_from(OBJECT_FIELDS), texts, values,
)  # fmt: skip
config_shapes = st.one_of(config_lists, config_objects)


def config_is_linear(shape: tuple[str, str, str]) -> None:
    field, unit, (opening, closing) = shape
    start = '{"peft_type":"LORA","target_modules":["q_proj"],"layers_to_transform":[1],"'
    if field in ("target_modules", "layers_to_transform"):
        start = '{"peft_type":"LORA","layers_to_transform":[1],"target_modules":["q_proj"],"'

    def make(num_bytes: int) -> bytes:
        return filled(f'{start}{field}":{opening}', unit.format, closing + "}", num_bytes)

    assert_linear(check_config, make, max_bytes=MAX_CONFIG_BYTES, refusals=AdapterRejected)


@pytest.mark.slow
@FEW
@example(("target_modules", '"m{}"', "[]"))
@example(("layers_pattern", '"m{}"', "[]"))
@example(("rank_pattern", '"model.layers.{}.x":1', "{}"))
@given(config_shapes)
def test_a_configuration_is_checked_in_linear_time(shape: tuple[str, str, str]) -> None:
    config_is_linear(shape)


@pytest.mark.long
@pytest.mark.timeout(3600)
@MANY
@given(config_shapes)
def test_any_configuration_is_checked_in_linear_time(shape: tuple[str, str, str]) -> None:
    config_is_linear(shape)


def test_the_name_of_the_base_is_compared_in_little_time(tmp_path: Path) -> None:
    def make(num_bytes: int) -> Path:
        name = "a" + "-hf" * ((num_bytes - 60) // 3)
        return adapter_folder(tmp_path / str(num_bytes), base_model_name_or_path=name)

    def check(folder: Path) -> None:
        names_another_base(AdapterFiles(folder).base_model_name, ["b"])

    assert_linear(check, make, max_bytes=MAX_CONFIG_BYTES, refusals=AdapterRejected)


names = st.sampled_from(
    [
        f"{Q}.0.self_attn.q_proj.lora_A{{}}",
        f"{Q}.{{}}.self_attn.q_proj.lora_A.weight",
        "{}",
        "." * 400 + "{}",
        "base_model.model." + ".lora_A" * 60 + "{}",
        "x" * 500 + "{}",
        f"{Q}.0.self_attn.q_proj.lora_A.{{}}.weight",
    ]
)
EMPTY = '{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}'
entries = st.sampled_from(
    [
        EMPTY,
        '{{"dtype":"F32","shape":[0,9223372036854775807],"data_offsets":[0,0]}}',
        '{{"dtype":"F32","shape":[' + "0," * 500 + '0],"data_offsets":[0,0]}}',
        '{{"dtype":"F32","shape":[' + "9" * 4000 + '],"data_offsets":[0,0]}}',
        '{{"dtype":"' + "F" * 3000 + '","shape":[0],"data_offsets":[0,0]}}',
        '{{"dtype":"F32","shape":[],"data_offsets":[{},{}]}}',
        "[]",
        "{{}}",
    ]
)
header_shapes = st.tuples(names, entries, st.sampled_from(["", '"__metadata__":']))


def adapter_folder(folder: Path, **fields: object) -> Path:
    """Return a folder with a configuration alone."""
    folder.mkdir(exist_ok=True)
    config = {"peft_type": "LORA", "target_modules": ["q_proj"], **fields}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def check_header(folder: Path) -> None:
    files = AdapterFiles(folder)
    report_headers(files, BASE)
    check_size(files, dtype=torch.float32, max_bytes=1 << 30)
    manifest_of(files.config, files.header, BASE)


def header_is_linear(folder: Path, shape: tuple[str, str, str]) -> None:
    name, entry, metadata = shape
    unit = f'"{name}":{entry}'
    start, end = ("{" + metadata + "{", "}}") if metadata else ("{", "}")

    def make(num_bytes: int) -> Path:
        text = filled(start, lambda n: unit.format(n, n, n + 1), end, num_bytes - 8)
        made = adapter_folder(folder / str(num_bytes))
        (made / "adapter_model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text)
        return made

    assert_linear(check_header, make, max_bytes=MAX_HEADER_BYTES, refusals=AdapterRejected)


@pytest.mark.slow
@FEW
@example((f"{Q}.0.self_attn.q_proj.lora_A{{}}", EMPTY, ""))
@given(header_shapes)
def test_a_header_is_checked_in_linear_time(tmp_path: Path, shape: tuple[str, str, str]) -> None:
    header_is_linear(tmp_path, shape)


@pytest.mark.long
@pytest.mark.timeout(3600)
@MANY
@given(header_shapes)
def test_any_header_is_checked_in_linear_time(tmp_path: Path, shape: tuple[str, str, str]) -> None:
    header_is_linear(tmp_path, shape)


TOKENS: dict[str, tuple[Unit, str]] = {
    "names": ('"{0}":{{"content":"<{0}>"}}'.format, "a" * 47 + "b"),
    "long names": ('"{0}":{{"content":"{0:x<48}"}}'.format, "a" * 47 + "b"),
    "one letter": ('"{0}":{{"content":"a"}}'.format, "a" * 47 + "b"),
    "many lengths": (lambda n: f'"{n}":{{"content":"{n:0{n % 42 + 6}}"}}', "ab"),
}
"""Added tokens, and a template that is repeated."""


@pytest.mark.slow
@pytest.mark.parametrize(("token", "template"), TOKENS.values(), ids=TOKENS)
def test_a_tokenizers_configuration_is_checked_in_linear_time(token: Unit, template: str) -> None:
    text = template * (MAX_TEMPLATE_CHARS // len(template))

    def make(num_bytes: int) -> dict[str, bytes]:
        config = filled('{"added_tokens_decoder":{', token, "}}", num_bytes)
        return {"chat_template.jinja": text.encode(), "tokenizer_config.json": config}

    assert_linear(read_prompting, make, max_bytes=MAX_PROMPT_FILE_BYTES, refusals=AdapterRejected)


def test_templates_and_tokens_beyond_their_limits_are_refused() -> None:
    with pytest.raises(AdapterRejected, match="chat templates have more than 32768 characters"):
        read_prompting({"chat_template.jinja": b"x" * (MAX_TEMPLATE_CHARS + 1)})
    tokens = {str(n): {"content": "x" * n} for n in range(1, 50)}
    text = json.dumps({"added_tokens_decoder": tokens}).encode()
    with pytest.raises(AdapterRejected, match="more than 48 different lengths"):
        read_prompting({"chat_template.jinja": b"x", "tokenizer_config.json": text})
