"""Names of an adapter's files, and the form of the source of an uploaded adapter. Pure."""

import re
from fnmatch import fnmatchcase

from shared.protocol.ids import UploadId

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
PICKLED_FILE = "adapter_model.bin"
"""Name of the weights file of an adapter that an old version of PEFT has saved."""
PROMPT_FILES = ("*.jinja", "tokenizer_config.json", "generation_config.json")
"""Patterns of the names of files that change prompts and sampling."""
UPLOAD = "upload:"
"""Prefix of the source of an uploaded adapter. The id of the adapter's files in Redis follows the
prefix."""
CONFIG_KEY = "adapter_config"
"""Key in a safetensors file's metadata. Its value, if any, is the text of adapter_config.json.

The names of prompt files are further keys, whose values are the texts of these files.
"""
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")


def is_prompt_file(name: str) -> bool:
    """Return whether `name` is the plain name of a file that changes prompts or sampling."""
    return bool(_PLAIN_NAME.fullmatch(name)) and any(
        fnmatchcase(name, pattern) for pattern in PROMPT_FILES
    )


def upload_source(upload: UploadId) -> str:
    """Return the source of an adapter whose files were uploaded with this id."""
    return UPLOAD + upload


def upload_of(source: str) -> UploadId | None:
    """Return the id of the uploaded files, or None if `source` isn't an upload."""
    return UploadId(source.removeprefix(UPLOAD)) if source.startswith(UPLOAD) else None
