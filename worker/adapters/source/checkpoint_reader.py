"""Reads adapters' files for one base model, and checks that they can be served exactly."""

from collections.abc import Sequence
from typing import Any

import structlog
import torch

from shared.errors import AdapterRejected
from shared.protocol.capabilities import EVERYTHING, Capabilities
from shared.protocol.tools import ToolSetting
from shared.reasoning_form import ReasoningSetting
from worker.adapters.source.base_names import names_another_base
from worker.adapters.source.checked_adapter import CheckedAdapter
from worker.lora.base.modules import BaseModules
from worker.lora.checkpoint.adapter import Digests, LoRAAdapter, read_checkpoint
from worker.lora.checkpoint.adapter_files import AdapterFiles
from worker.text.adapter_style import adapter_style

log = structlog.get_logger()


class CheckpointReader:
    """Reads the weights and the prompt style of adapters. Any thread may call it."""

    def __init__(
        self,
        base: BaseModules,
        tokenizer: Any,
        *,
        base_names: Sequence[str],
        dtype: torch.dtype,
        vocab_size: int,
        tool_setting: ToolSetting,
        reasoning_setting: ReasoningSetting,
        serves: Capabilities = EVERYTHING,
    ) -> None:
        """Create a reader of adapters for one base model.

        Adapters may name it by `base_names`. `dtype` is that of the weights in memory. The settings
        are the values of --tool-call-parser and --reasoning-parser.
        """
        self._base = base
        self._tokenizer = tokenizer
        self._base_names = base_names
        self._dtype = dtype
        self._vocab_size = vocab_size
        self._tool_setting = tool_setting
        self._reasoning_setting = reasoning_setting
        self._serves = serves

    def read(
        self, name: str, files: AdapterFiles, *, checked: Digests | None = None
    ) -> CheckedAdapter[LoRAAdapter]:
        """Return the adapter in `files`. `checked` has the same meaning as in `read_checkpoint`.

        Raises:
            AdapterRejected: the adapter can't be served exactly, or a chat template can't be used.
        """
        weights = read_checkpoint(
            name, files, self._base, dtype=self._dtype, checked=checked, serves=self._serves
        )
        try:
            style = adapter_style(
                weights.prompting,
                self._tokenizer,
                vocab_size=self._vocab_size,
                tool_setting=self._tool_setting,
                reasoning_setting=self._reasoning_setting,
            )
        except AdapterRejected as error:
            raise AdapterRejected(f"adapter {name} from {files.source}: {error}") from error
        if unused := weights.prompting.unused:
            log.warning("adapter_files_not_used", version=weights.version, files=unused)
        trained_on = files.base_model_name
        if checked is None and names_another_base(trained_on, self._base_names):
            log.warning(
                "adapter_names_another_base",
                version=weights.version,
                trained_on=trained_on,
                served=self._base_names[0],
            )
        return CheckedAdapter(weights, style)
