"""Reads adapters' files for one base model, and checks that they can be served exactly."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import PurePosixPath
from typing import Any

import structlog
import torch

from shared.errors import AdapterRejected
from shared.protocol.capabilities import EVERYTHING, Capabilities
from shared.protocol.tools import ToolSetting
from shared.reasoning_form import ReasoningSetting
from worker.adapters.source.interface import CheckedAdapter
from worker.lora.base.modules import BaseModules
from worker.lora.checkpoint.adapter import Digests, LoRAAdapter, read_checkpoint
from worker.lora.checkpoint.adapter_files import AdapterFiles
from worker.text.adapter_style import adapter_style

log = structlog.get_logger()
_CACHED = "models--"
"""Start of a folder's name in the hub's cache: `models--ORG--NAME/snapshots/REVISION`."""
_SAME_WEIGHTS = re.compile(
    r"-(?:unsloth|bnb|4bit|8bit|4-bit|8-bit|nf4|fp4|int4|int8|w4a16|w8a8|fp8|fp8-dynamic|awq|gptq"
    r"|bf16|fp16|mlx|hf)$"
)
"""Endings of names under which the same base is published in another precision or format."""
_OLD_PREFIX = re.compile(r"^meta-(?=llama)")
"""Meta's repositories lost this prefix when they were renamed."""


@dataclass(frozen=True, slots=True, eq=False)
class CheckpointReader:
    """Reads the weights and the prompt style of adapters. Any thread may call it."""

    base: BaseModules
    tokenizer: Any
    """Tokenizer of the base model, of the transformers library."""
    _: KW_ONLY
    base_names: Sequence[str]
    """Names of the base model, by which adapters may name it."""
    dtype: torch.dtype
    """Dtype of the weights in memory."""
    vocab_size: int
    tool_setting: ToolSetting
    reasoning_setting: ReasoningSetting
    serves: Capabilities = EVERYTHING

    def read(
        self, name: str, files: AdapterFiles, *, checked: Digests | None = None
    ) -> CheckedAdapter[LoRAAdapter]:
        """Return the adapter in `files`. `checked` has the same meaning as in `read_checkpoint`.

        Raises:
            AdapterRejected: the adapter can't be served exactly, or a chat template can't be used.
        """
        weights = read_checkpoint(
            name, files, self.base, dtype=self.dtype, checked=checked, serves=self.serves
        )
        try:
            style = adapter_style(
                weights.prompting,
                self.tokenizer,
                vocab_size=self.vocab_size,
                tool_setting=self.tool_setting,
                reasoning_setting=self.reasoning_setting,
            )
        except AdapterRejected as error:
            raise AdapterRejected(f"adapter {name} from {files.source}: {error}") from error
        if unused := weights.prompting.unused:
            log.warning("adapter_files_not_used", version=weights.version, files=unused)
        trained_on = files.base_model_name
        if checked is None and names_another_base(trained_on, self.base_names):
            log.warning(
                "adapter_names_another_base",
                version=weights.version,
                trained_on=trained_on,
                served=self.base_names[0],
            )
        return CheckedAdapter(weights, style)


def names_another_base(trained_on: str | None, served: Iterable[str]) -> bool:
    """Return whether an adapter names another base model than the one that is served.

    Organisations are ignored, because mirrors publish the same base under the same name. A name
    that says nothing, such as an empty one, names no base. All names are hub ids or folders.
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
