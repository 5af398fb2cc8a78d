"""Compares the name of the base model in an adapter's configuration with the served base model."""

import re
from collections.abc import Iterable
from pathlib import PurePosixPath

_CACHED = "models--"
"""Start of a folder's name in the hub's cache: `models--ORG--NAME/snapshots/REVISION`."""
_SAME_WEIGHTS = re.compile(
    r"[-.](?:unsloth|bnb|4bit|8bit|4-bit|8-bit|nf4|fp4|int4|int8|w4a16|w8a8|fp8|fp8-dynamic|awq"
    r"|gptq|bf16|fp16|f16|f32|mlx|hf|gguf|(?:ud-)?i?q[1-8](?:-(?:[01kslm]|xl|xxl|x?xs|nl))*|mxfp4)$"
)
"""Matches the suffix of a base model's name if it denotes another precision or format."""
_OLD_PREFIX = re.compile(r"^meta-(?=llama)")
"""Meta's repositories lost this prefix when they were renamed."""


def names_another_base(trained_on: str | None, served: Iterable[str]) -> bool:
    """Return whether `trained_on`, the base model that an adapter names, isn't among `served`.

    Organisations are ignored, because mirrors publish the same base under the same name. Empty
    names and `.` are ignored, too. All names are hub ids or folders.
    """
    key = _key(trained_on or "")
    keys = {_key(name) for name in served} - {""}
    return bool(key) and bool(keys) and key not in keys


def _key(name: str) -> str:
    """Return the part of a base's name that all its repositories and folders share."""
    path = PurePosixPath(name.strip().replace("\\", "/"))
    cached = [part.split("--", 2)[-1] for part in path.parts if part.startswith(_CACHED)]
    last = cached[-1] if cached else path.name
    key = _OLD_PREFIX.sub("", last.lower().replace("_", "-"))
    while (shorter := _SAME_WEIGHTS.sub("", key)) != key:
        key = shorter
    return key.strip(".")
