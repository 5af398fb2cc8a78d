"""Loads a base model's tokenizer and its chat template."""

import json
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from shared.errors import ModelRejected, first_line
from worker.model.loading.chatglm_tokenizer import chatglm_tokenizer
from worker.model.loading.folder import is_chatglm
from worker.model.loading.gguf_file import gguf_tokenizer

_PROCESSORS_TEMPLATE = "chat_template.json"
"""File that contains the chat template of a multimodal model's processor in older repositories."""


def load_tokenizer(source: str, folder: Path) -> Any:
    """Return the tokenizer of the model in `folder`, which may be a GGUF file.

    Raises:
        ModelRejected: the tokenizer can't be read.
    """
    try:
        if folder.is_file():
            return gguf_tokenizer(source, folder)
        if is_chatglm(folder):
            return chatglm_tokenizer(source, folder)
        tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
        if tokenizer.chat_template is None:
            tokenizer.chat_template = _processors_template(folder / _PROCESSORS_TEMPLATE)
    except ModelRejected:
        raise
    except Exception as error:  # transformers raises many error types for broken folders
        raise ModelRejected(f"--model {source}: AutoTokenizer: {first_line(error)}") from error
    return tokenizer


def _processors_template(file: Path) -> str | None:
    """Return the chat template in `file`, or None if the file doesn't exist."""
    if not file.is_file():
        return None
    template = json.loads(file.read_bytes())["chat_template"]
    if not isinstance(template, str):
        raise TypeError(f"{file.name}: chat_template isn't a text")
    return template
