"""chatglm2, chatglm3 and glm-4, as their repositories hold them, answer as their equations say."""

import json
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from adapter_folders import set_field
from chatglm import (
    KINDS,
    RANKS,
    Reference,
    Tensors,
    pieces,
    save_chatglm,
    save_pickled_adapter,
    save_sentencepiece,
    sentencepiece_ids,
    tiktoken_ids,
)
from engines import engine_of, greedy_request, random_prompt, run
from hypothesis import given
from hypothesis import strategies as st
from reference import with_adapter
from tiny import save_adapter

from shared.errors import ModelRejected
from worker.lora.checkpoint.adapter_files import AdapterFiles
from worker.lora.checkpoint.pickled_weights import converted
from worker.model.loader import load_model
from worker.model.loading.architecture import read_config
from worker.model.loading.tokenizer import load_tokenizer
from worker.model.loading.weights import load_weights

CPU = torch.device("cpu")
MODULES = ["query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"]
USER = [{"role": "user", "content": "hi"}]
Save = Callable[[str], Path]
kinds = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture
def save(tmp_path: Path) -> Save:
    def save_one(kind: str) -> Path:
        save_chatglm(tmp_path / "model", kind, pickled=True)
        return tmp_path / "model"

    return save_one


def tokenizer_of(folder: Path) -> Any:
    return load_tokenizer(str(folder), folder)


def prompt(tokenizer: Any, messages: list[dict[str, str]]) -> str:
    text: str = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return text


def ids_of(tokenizer: Any, text: str, *, specials: bool = False) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=specials)["input_ids"]
    return ids


@kinds
@pytest.mark.parametrize("pickled", [True, False], ids=["bin", "safetensors"])
def test_logits_equal_those_of_the_published_equations(
    tmp_path: Path, kind: str, pickled: bool
) -> None:
    tensors = save_chatglm(tmp_path, kind, pickled=pickled)
    config = read_config(str(tmp_path), tmp_path)
    model = load_weights(str(tmp_path), tmp_path, config, dtype=torch.float32, device=CPU)
    ids = random_prompt(0, 40)
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([ids])).logits[0]
        gap = (logits - Reference(kind, tensors)(ids)).abs().max()
    assert gap < 1e-4, gap


OTHERS: dict[str, dict[str, Any]] = {
    "dora": {"r": 5, "target_modules": ["query_key_value", "dense"], "use_dora": True},
    "bias": {"target_modules": r".*layers\.1\..*(query_key_value|dense)", "bias": "all"},
    "b-bias": {"target_modules": "all-linear", "lora_bias": True, "use_rslora": True, "r": 3},
    "saved": {"modules_to_save": ["query_key_value", "final_layernorm", "word_embeddings"]},
    "ranks": {"rank_pattern": {"query_key_value": 9}, "alpha_pattern": {"dense": 3}},
    "default": {"target_modules": None},
}
"""Configurations of adapters that PEFT of today saves."""


@kinds
def test_base_and_pickled_adapters_answer_in_one_batch_as_the_equations_say(
    tmp_path: Path, kind: str
) -> None:
    tensors = save_chatglm(tmp_path / "model", kind, pickled=True)
    models, folders = {"base": Reference(kind, tensors)}, {}
    for seed, (name, modules) in enumerate({"qkv": MODULES[:1], "all": MODULES}.items()):
        saved = save_pickled_adapter(tmp_path / name, tensors, modules, seed=seed)
        models[name] = adapted(kind, tensors, saved)
        folders[name] = converted(AdapterFiles(saved, is_operators=True), new(saved)).folder
    check_answers(tmp_path / "model", models, folders)


def test_other_kinds_of_adapters_are_served_as_peft_computes_them(tmp_path: Path) -> None:
    tensors = save_chatglm(tmp_path / "model", pickled=False)
    models, folders = {"base": Reference("chatglm2", tensors)}, {}
    for seed, (name, config) in enumerate(OTHERS.items()):
        base, config = Reference("chatglm2", tensors), {"target_modules": MODULES[1:], **config}
        folders[name] = save_adapter(tmp_path / name, base=base, seed=seed, scale=0.2, **config)
        if config["target_modules"] is None:
            set_field(folders[name], target_modules=None)
        models[name] = adapted("chatglm2", tensors, folders[name])
    check_answers(tmp_path / "model", models, folders)


def new(folder: Path) -> Path:
    made = folder.with_name(f"{folder.name} converted")
    made.mkdir()
    return made


def adapted(kind: str, tensors: Tensors, folder: Path) -> Reference:
    model = Reference(kind, tensors)
    with_adapter(model, folder)  # changes it in place
    return model


def check_answers(
    folder: Path, models: Mapping[str, Reference], adapters: Mapping[str, Path]
) -> None:
    """Check greedy answers of all models in one batch."""
    engine, versions = engine_of(load_model(str(folder), dtype="float32"), adapters)
    prompts = {name: random_prompt(seed, 9) for seed, name in enumerate(models)}
    requests = [greedy_request(n, ids, 12, versions.get(n)) for n, ids in prompts.items()]
    assert run(engine, requests) == {
        name: model.greedy(prompts[name], 12) for name, model in models.items()
    }


def test_the_pages_prompt_of_chatglm2_has_17_tokens(save: Save) -> None:
    tokenizer = tokenizer_of(save("chatglm2"))
    text = prompt(tokenizer, USER)
    assert text == "[gMASK]<sop>[Round 1]\n\n问：hi\n\n答："  # noqa: RUF001
    names = tokenizer.convert_ids_to_tokens(ids_of(tokenizer, text))
    expected = "[gMASK] <sop> ▁[ R ound ▁ 1 ] <0x0A> <0x0A> 问 ： hi <0x0A> <0x0A> 答 ："  # noqa: RUF001
    assert names == expected.split()
    assert len(names) == 17


TURNS = [*USER, {"role": "assistant", "content": "你好"}, {"role": "user", "content": "1"}]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (
            "chatglm2",
            "[gMASK]<sop>[Round 1]\n\n问：hi\n\n答：你好\n\n[Round 2]\n\n问：1\n\n答：",  # noqa: RUF001
        ),
        ("chatglm3", "[gMASK]<sop><|user|>\n hi<|assistant|>\n 你好<|user|>\n 1<|assistant|>"),
        ("glm4", "[gMASK]<sop><|user|>\nhi<|assistant|>\n你好<|user|>\n1<|assistant|>"),
    ],
)
def test_chats_have_the_form_that_the_model_was_trained_on(
    save: Save, kind: str, expected: str
) -> None:
    folder = save(kind)
    assert prompt(tokenizer_of(folder), TURNS) == expected
    own = {"chat_template": "[gMASK]sop{{ messages[0].content }}"}
    (folder / "tokenizer_config.json").write_text(json.dumps(own))
    assert prompt(tokenizer_of(folder), TURNS) == "[gMASK]<sop>hi"


@pytest.mark.parametrize(
    ("kind", "first", "roles"),
    [("chatglm2", len(pieces()), 0), ("chatglm3", len(pieces()), 4), ("glm4", len(RANKS), 4)],
)
def test_special_tokens_follow_the_vocabulary_and_begin_each_text(
    save: Save, kind: str, first: int, roles: int
) -> None:
    folder = save(kind)
    tokenizer = tokenizer_of(folder)
    names = ["[MASK]", "[gMASK]", "[sMASK]", "<sop>", "<eop>"]
    names += ["<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"][:roles]
    names = ["<|endoftext|>", *names] if kind == "glm4" else names
    assert [tokenizer.convert_tokens_to_ids(name) for name in names] == [
        *range(first, first + len(names))
    ]
    start = [tokenizer.convert_tokens_to_ids(name) for name in ("[gMASK]", "<sop>")]
    assert ids_of(tokenizer, "hi", specials=True) == [*start, *ids_of(tokenizer, "hi")]
    ends = {tokenizer.convert_tokens_to_ids(n) for n in ("<|user|>", "<|observation|>")}
    expected = {2, *(ends if roles else ())} | ({first} if kind == "glm4" else set())
    assert load_model(str(folder), dtype="float32").eos_ids == expected


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("tokenizers")
    for kind in ("chatglm2", "glm4"):
        save_chatglm(folder / kind, kind, pickled=True)
    return {kind: tokenizer_of(folder / kind) for kind in ("chatglm2", "glm4")}


text = st.text(st.sampled_from("hiouRnd[1▁你好é\n 🙂wel"), min_size=1)


@given(text)
def test_pieces_are_those_of_sentencepieces_merges(tokenizers: dict[str, Any], text: str) -> None:
    ids = ids_of(tokenizers["chatglm2"], text)
    assert ids == sentencepiece_ids(text)
    assert tokenizers["chatglm2"].decode(ids) == text.replace("▁", " ")


PIECES = r"[^\r\n\w]?[^\W\d]+|\d{1,3}| ?[^\s\w]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
"""glm-4's pattern, as `re` has it for the characters of `text`."""


@given(text)
def test_pieces_are_those_of_tiktokens_merges(tokenizers: dict[str, Any], text: str) -> None:
    ids = ids_of(tokenizers["glm4"], text)
    assert ids == [n for piece in re.findall(PIECES, text) for n in tiktoken_ids(piece)]
    assert tokenizers["glm4"].decode(ids) == text


def test_spaces_are_removed_if_the_sentencepiece_model_says_so(save: Save) -> None:
    folder = save("chatglm2")
    save_sentencepiece(folder / "tokenizer.model", remove_extra_whitespaces=True)
    assert ids_of(tokenizer_of(folder), "  hi   1 ") == sentencepiece_ids("hi 1")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"apply_residual_connection_post_layernorm": True}, "layernorm=True .* supported: false"),
        ({"rmsnorm": False}, "rmsnorm=False in its config.json isn't supported: supported: true"),
        ({"original_rope": False}, "original_rope=False"),
        ({"multi_query_attention": False}, "multi_query_attention=False"),
        ({"add_bias_linear": True}, "add_bias_linear=True"),
        ({"quantization_bit": 4}, "quantization_bit=4"),
        ({"pre_seq_len": 128}, "pre_seq_len=128"),
        ({"vision_config": {"x": 1}}, "vision_config="),
        ({"position_encoding_2d": True}, "position_encoding_2d=True"),
        ({"tie_word_embeddings": True}, "tie_word_embeddings=True"),
        ({"kv_channels": None}, "kv_channels=None .* expected a positive number"),
        ({"rope_ratio": 0}, "rope_ratio=0"),
        ({"eos_token_id": "two"}, r"config\.json: .*eos_token_id"),
    ],
)
def test_a_field_that_changes_the_equations_is_refused_by_name(
    tmp_path: Path, fields: dict[str, Any], reason: str
) -> None:
    save_chatglm(tmp_path, pickled=True)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | fields))
    with pytest.raises(ModelRejected, match=reason):
        read_config("glm", tmp_path)


def test_a_checkpoint_that_might_be_chatglm2_or_chatglm3_is_refused(tmp_path: Path) -> None:
    save_chatglm(tmp_path, pickled=True, _name_or_path="mine")
    refused = partial(pytest.raises, ModelRejected, match=r"chatglm2 or chatglm3.*_name_or_path")
    with refused():
        load_tokenizer("mine", tmp_path)
    roles = {"additional_special_tokens": ["<|user|>"]}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(roles))
    assert "<|user|>" in prompt(load_tokenizer("mine", tmp_path), USER)
