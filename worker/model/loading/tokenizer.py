"""Loads a base model's tokenizer."""

from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from shared.errors import ModelRejected
from worker.model.loading.chatglm_tokenizer import chatglm_tokenizer
from worker.model.loading.folder import is_chatglm
from worker.model.loading.refusals import first_line


def load_tokenizer(source: str, folder: Path) -> Any:
    """Return the tokenizer of the model in `folder`. Raises ModelRejected if it can't be read."""
    try:
        if is_chatglm(folder):
            return chatglm_tokenizer(source, folder)
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except ModelRejected:
        raise
    except Exception as error:  # transformers raises many error types for broken folders
        raise ModelRejected(f"--model {source}: AutoTokenizer: {first_line(error)}") from error
