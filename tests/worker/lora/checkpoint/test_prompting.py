"""Chat templates, end tokens and sampling defaults from an adapter's folder."""

import json
from pathlib import Path
from typing import Any

import pytest
from adapter_folders import read_adapter
from tiny import save_adapter

from shared.errors import AdapterRejected
from worker.lora.base.modules import BaseModules
from worker.lora.checkpoint.prompting import Prompting, read_prompting

TEMPLATE = "{{ bos_token }}<|im_start|>{{ messages[0].content }}"


def read(tokenizer: Any = None, generation: Any = None, **files: str) -> Prompting:
    contents = {name: text.encode() for name, text in files.items()}
    if tokenizer is not None:
        contents["tokenizer_config.json"] = json.dumps(tokenizer).encode()
    if generation is not None:
        contents["generation_config.json"] = json.dumps(generation).encode()
    return read_prompting(contents)


def test_a_folder_without_prompt_files_changes_nothing() -> None:
    assert read() == Prompting()


def test_the_template_file_overrides_the_tokenizers_field() -> None:
    assert read({"chat_template": "old"}).templates == {"default": "old"}
    files = {"chat_template.jinja": "new", "other.jinja": "x"}
    both = read({"chat_template": "old"}, **files)
    assert both.templates == {"default": "new"}
    assert both.unused == ("other.jinja",)


def test_of_named_templates_the_default_and_the_one_for_tools_are_used() -> None:
    named = [{"name": n, "template": n.upper()} for n in ("default", "tool_use", "rag")]
    assert read({"chat_template": named}).templates == {
        "default": "DEFAULT",
        "tool_use": "TOOL_USE",
    }


def test_special_tokens_may_be_strings_or_objects() -> None:
    found = read({"bos_token": "<s>", "eos_token": {"content": "</s>"}, "pad_token": None})
    assert found.special_tokens == {"bos_token": "<s>", "eos_token": "</s>"}


def test_added_tokens_are_used_if_a_template_mentions_them() -> None:
    added = {"7": {"content": "<|im_start|>"}, "8": {"content": "[PAD]"}}
    tokenizer = {"chat_template": TEMPLATE, "added_tokens_decoder": added}
    assert read(tokenizer).token_ids == {"<|im_start|>": 7}


@pytest.mark.parametrize(
    ("generation", "eos_ids", "sampling"),
    [
        ({}, (), {}),
        ({"eos_token_id": 2}, (2,), {}),
        ({"eos_token_id": [2, 5], "temperature": 0.6}, (2, 5), {"temperature": 0.6}),
        ({"do_sample": True, "top_k": 20, "top_p": 1}, (), {"top_k": 20, "top_p": 1}),
        ({"do_sample": False, "temperature": 0.6}, (), {"temperature": 0.0}),
        (
            {"min_p": 0.1, "repetition_penalty": 1.2, "max_new_tokens": 9},
            (),
            {"min_p": 0.1, "repetition_penalty": 1.2},
        ),
    ],
    ids=str,
)
def test_a_generation_config_sets_end_tokens_and_defaults(
    generation: dict[str, Any], eos_ids: tuple[int, ...], sampling: dict[str, float]
) -> None:
    found = read(generation=generation)
    assert (found.eos_ids, found.sampling) == (eos_ids, sampling)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"tokenizer_config.json": "{"}, "tokenizer_config.json isn't JSON"),
        ({"generation_config.json": "[]"}, "generation_config.json isn't a JSON object"),
        ({"tokenizer_config.json": '{"chat_template": 3}'}, "chat_template is neither"),
        (
            {"tokenizer_config.json": '{"chat_template": [{"name": "rag", "template": "x"}]}'},
            "chat_template is neither",
        ),
        ({"tokenizer_config.json": '{"added_tokens_decoder": [1]}'}, "added_tokens_decoder"),
        ({"generation_config.json": '{"eos_token_id": "x"}'}, "eos_token_id='x' isn't a token id"),
        ({"generation_config.json": '{"eos_token_id": [-1]}'}, "isn't a token id"),
        ({"generation_config.json": '{"temperature": -1}'}, "temperature=-1 isn't supported"),
        ({"generation_config.json": '{"temperature": true}'}, "temperature=True isn't supported"),
        ({"generation_config.json": '{"top_k": 2.5}'}, "top_k=2.5 isn't supported"),
        ({"generation_config.json": '{"top_p": NaN}'}, "top_p=nan isn't supported"),
        ({"generation_config.json": '{"top_p": 0}'}, "top_p=0 isn't supported"),
        ({"generation_config.json": f'{{"top_k": 1{"0" * 400}}}'}, "top_k=1000.* isn't supported"),
        (
            {
                "chat_template.jinja": "x",
                "tokenizer_config.json": '{"added_tokens_decoder": {"1": {"content": 5}}}',
            },
            "added_tokens_decoder",
        ),
    ],
    ids=str,
)
def test_malformed_files_are_refused_by_file_and_field(files: dict[str, str], message: str) -> None:
    with pytest.raises(AdapterRejected, match=message):
        read(**files)


def test_an_adapter_has_the_prompting_of_its_folder(base: BaseModules, tmp_path: Path) -> None:
    folder = save_adapter(tmp_path, target_modules=["q_proj"])
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    (folder / "generation_config.json").write_text('{"eos_token_id": 9}')
    adapter = read_adapter(base, folder)
    assert adapter.prompting == Prompting(templates={"default": TEMPLATE}, eos_ids=(9,))
    (folder / "chat_template.jinja").write_bytes(b"\xff")
    with pytest.raises(AdapterRejected, match=r"a from .*chat_template\.jinja isn't UTF-8"):
        read_adapter(base, folder)
