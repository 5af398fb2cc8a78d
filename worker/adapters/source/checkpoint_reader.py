"""Reads adapters' files for one base model, and checks that they can be served exactly.

This module neither fetches nor copies files; `reader.py` does.
"""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

import structlog
import torch

from shared.errors import AdapterRejected
from shared.protocol.capabilities import EVERYTHING, Capabilities
from shared.protocol.tools import ToolSettings
from shared.reasoning_form import ReasoningSetting
from worker.adapters.source.base_names import names_another_base
from worker.adapters.source.interface import CheckedAdapter
from worker.lora.base.modules import BaseModules
from worker.lora.checkpoint.adapter import Digests, LoRAAdapter, read_checkpoint
from worker.lora.checkpoint.adapter_files import AdapterFiles
from worker.text.adapter_style import adapter_style

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, eq=False)
class CheckpointReader:
    """Reads the weights and the prompt style of adapters. Any thread may call it."""

    base: BaseModules
    tokenizer: Any
    """Tokenizer of the base model, of the transformers library."""
    _: KW_ONLY
    base_names: Sequence[str]
    """Names that adapters may use for the base model."""
    dtype: torch.dtype
    """Dtype of the weights in memory."""
    vocab_size: int
    tool_settings: ToolSettings
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
                tool_settings=self.tool_settings,
                reasoning_setting=self.reasoning_setting,
            )
        except AdapterRejected as error:
            raise AdapterRejected(f"adapter {name} from {files.source}: {error}") from error
        if unused := weights.prompting.unused:
            log.warning("adapter_files_not_used", version=weights.version, files=unused)
        if num_tensors := weights.num_without_effect:
            log.warning(
                "adapter_tensors_without_effect",
                version=weights.version,
                num_tensors=num_tensors,
                reason="they belong to parts for images, video or sound, and only text is served",
            )
        trained_on = files.base_model_name
        is_other = names_another_base(trained_on, self.base_names)
        if checked is None and is_other:
            log.warning(
                "adapter_names_another_base",
                version=weights.version,
                trained_on=trained_on,
                served=self.base_names[0],
            )
        return CheckedAdapter(weights, style, trained_on if is_other else None)
