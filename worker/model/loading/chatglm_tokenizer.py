"""Converts the tokenizers of chatglm2, chatglm3 and glm-4 to those of the library `tokenizers`.

The converted tokenizers split texts into the same pieces and ids as `tokenization_chatglm.py` in
the models' repositories. There is one exception: the special tokens `sop` and `eop` of chatglm2 and
chatglm3 are called `<sop>` and `<eop>`, as in glm-4, because `sop` and `eop` could be parts of
words.
"""

import json
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from shared.errors import ModelRejected
from worker.model.loading.chatglm import Generation, generation
from worker.model.loading.folder import TOKENIZER_FILE
from worker.model.loading.sentencepiece_model import read_sentencepiece
from worker.model.loading.tiktoken_ranks import read_tiktoken

_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Regular expression that splits a text for glm-4 before pairs of tokens are merged."""
_MARKS = ["[MASK]", "[gMASK]", "[sMASK]", "<sop>", "<eop>"]
_ROLES = ["<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"]
_MEDIA = ["<|begin_of_image|>", "<|end_of_image|>", "<|begin_of_video|>", "<|end_of_video|>"]
_SPECIAL = {
    Generation.CHATGLM2: _MARKS,
    Generation.CHATGLM3: [*_MARKS, *_ROLES],
    Generation.GLM4: ["<|endoftext|>", *_MARKS, *_ROLES, *_MEDIA],
}
"""Special tokens of each generation. Their ids follow the ids of the vocabulary."""
_START = "[gMASK]<sop>"
"""Start of every prompt."""
_UNKNOWN_ROLE = "{{ raise_exception('the role ' ~ m.role ~ ' is unknown to this model') }}"
_BY_ROLE = (
    f"{_START}{{% for m in messages %}}"
    "{% set role = 'observation' if m.role == 'tool' else m.role %}"
    "{% if role not in ('system', 'user', 'assistant', 'observation') %}"
    f"{_UNKNOWN_ROLE}{{% endif %}}"
    "<|{{ role }}|>{{ '\\n' }}CONTENT{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
_TEMPLATES = {
    Generation.CHATGLM2: (
        f"{_START}{{% set rounds = namespace(number=0) %}}{{% for m in messages %}}"
        "{% if m.role == 'user' %}{% set rounds.number = rounds.number + 1 %}"
        "{{ '[Round ' ~ rounds.number ~ ']\\n\\n问：' ~ m.content ~ '\\n\\n' }}"  # noqa: RUF001
        "{% elif m.role == 'assistant' %}{{ '答：' ~ m.content ~ '\\n\\n' }}"  # noqa: RUF001
        "{% elif m.role == 'system' %}{{ m.content ~ '\\n\\n' }}"
        f"{{% else %}}{_UNKNOWN_ROLE}{{% endif %}}"
        "{% endfor %}{% if add_generation_prompt %}答：{% endif %}"  # noqa: RUF001
    ),
    # The space is sentencepiece's, which the original adds by encoding each content on its own.
    Generation.CHATGLM3: _BY_ROLE.replace("CONTENT", "{{ ' ' ~ m.content if m.content }}"),
    Generation.GLM4: _BY_ROLE.replace("CONTENT", "{{ m.content }}"),
}
"""Chat templates, for repositories without one."""


def chatglm_tokenizer(source: str, folder: Path) -> PreTrainedTokenizerFast:
    """Return the tokenizer of the chatglm model in `folder`.

    Raises:
        ModelRejected: a file is missing, or isn't in the format of a known chatglm model.
    """
    path = folder / TOKENIZER_FILE
    if not path.is_file():
        raise ModelRejected(f"--model {source}: {path} is missing; download the model again")
    found = generation(source, folder)
    is_glm4 = found is Generation.GLM4
    end = "<|endoftext|>" if is_glm4 else "</s>"
    try:
        backend = read_tiktoken(path, _PATTERN) if is_glm4 else read_sentencepiece(path)
        _add_special_tokens(backend, _SPECIAL[found], end)
    except ValueError as error:
        raise ModelRejected(f"--model {source}: {path} can't be read: {error}") from error
    # After these tokens, the next message would begin.
    turns = {"eot_token": "<|user|>", "eom_token": "<|observation|>"}
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token=end,
        pad_token=end if is_glm4 else "<unk>",
        extra_special_tokens={} if found is Generation.CHATGLM2 else turns,
        chat_template=_own_template(folder) or _TEMPLATES[found],
        clean_up_tokenization_spaces=False,
    )


def _add_special_tokens(backend: Tokenizer, names: list[str], end: str) -> None:
    first = backend.get_vocab_size()
    backend.add_special_tokens([AddedToken(name, normalized=False) for name in names])
    if [backend.token_to_id(name) for name in names] != list(range(first, first + len(names))):
        raise ValueError("its vocabulary has a special token of chatglm as a piece")
    if backend.token_to_id(end) is None:
        raise ValueError(f"its vocabulary lacks the end token {end}")
    start = ["[gMASK]", "<sop>"]
    backend.post_processor = TemplateProcessing(
        single=f"{' '.join(start)} $A",
        special_tokens=[(name, backend.token_to_id(name)) for name in start],
    )


def _own_template(folder: Path) -> str | None:
    """Return the chat template of the repository, or None if it has none.

    In chatglm3's template, the old name `sop` is replaced by `<sop>`.
    """
    path = folder / "chat_template.jinja"
    if path.is_file():
        template: Any = path.read_text(encoding="utf-8")
    else:
        path = folder / "tokenizer_config.json"
        template = json.loads(path.read_bytes()).get("chat_template") if path.is_file() else None
    return template.replace("[gMASK]sop", _START) if isinstance(template, str) else None
