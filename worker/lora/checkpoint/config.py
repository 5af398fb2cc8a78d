"""Reads adapter_config.json and refuses settings that can't be served exactly.

There are three kinds of fields in PEFT's `LoraConfig`: supported fields, fields without effect at
inference, and unsupported fields, which must be null, false, 0 or empty. Unknown fields are treated
as unsupported, because ignoring their values could silently give wrong answers.
"""

import math
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from shared.errors import AdapterRejected
from worker.lora.checkpoint.json_file import cached_by_text, json_object
from worker.lora.checkpoint.unsupported_config import REFUSAL_REASONS, UNKNOWN_FIELD

MAX_CONFIG_BYTES = 1 << 20

_TARGETING = (
    "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern",
    "ensure_weight_tying", "modules_to_save",
)  # fmt: skip
_READ = frozenset(
    (
        *_TARGETING,
        "r",
        "lora_alpha",
        "use_rslora",
        "rank_pattern",
        "alpha_pattern",
        "fan_in_fan_out",
        "use_dora",
        "lora_bias",
        "trainable_token_indices",
    )
)
_WITHOUT_EFFECT = frozenset(
    (
        "auto_mapping",
        "base_model_name_or_path",
        "eva_config",  # chooses the initial lora_A and leaves the base unchanged
        "inference_mode",
        "lora_dropout",
        "megatron_core",  # used only with megatron_config
        "peft_version",
        "qalora_group_size",  # used only with use_qalora
        "revision",
        "runtime_config",  # where tensors are kept during training
    )
)
_SUPPORTED_VALUES: dict[str, tuple[object, ...]] = {
    "peft_type": ("LORA",),
    "task_type": (None, "CAUSAL_LM"),
    "bias": ("none", "all", "lora_only"),  # the file holds all biases that were trained
    "init_lora_weights": (None, True, False, "gaussian", "eva", "orthogonal", "mica"),
}
_ELEMENT_TYPES: Mapping[str, type] = {"layers_to_transform": int, "ensure_weight_tying": bool}
"""For each targeting field that doesn't hold strings, the type of its value.

If the value is a list, this is the type of the list's elements.
"""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AdapterConfig:
    """Settings in an adapter_config.json that affect what the adapter computes."""

    r: int
    alpha: float
    use_rslora: bool
    rank_pattern: Mapping[str, int]
    alpha_pattern: Mapping[str, float]
    fan_in_fan_out: bool
    """Whether the targeted weights are stored as `[in, out]`, as in GPT-2."""
    use_dora: bool
    lora_bias: bool
    """Whether each matrix B has a bias vector."""
    modules_to_save: tuple[str, ...]
    """Name suffixes of the modules that are trained in full."""
    token_indices: Mapping[str | None, tuple[int, ...]]
    """Ids of the tokens whose embedding or head rows are trained, by module name suffix.

    The key None stands for the input embedding.
    """
    targeting: Any
    """A `peft.LoraConfig` with only the fields that select modules."""

    def rank(self, module: str) -> int:
        """Return the rank of a targeted module."""
        return self.rank_pattern.get(_pattern_key(self.rank_pattern, module), self.r)

    def scaling(self, module: str) -> float:
        """Return the factor by which PEFT multiplies a targeted module's `B @ A`."""
        alpha = self.alpha_pattern.get(_pattern_key(self.alpha_pattern, module), self.alpha)
        rank = self.rank(module)
        return alpha / math.sqrt(rank) if self.use_rslora else alpha / rank


def read_config(path: Path) -> bytes:
    """Read the text of the adapter_config.json at `path`.

    Raises:
        AdapterRejected: the file has more than MAX_CONFIG_BYTES.
    """
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise AdapterRejected(f"{path} has more than {MAX_CONFIG_BYTES} bytes")
    return path.read_bytes()


@cached_by_text
def config_fields(text: bytes) -> Mapping[str, Any]:
    """Parse the fields of an adapter_config.json without checking them.

    Raises:
        AdapterRejected: `text` isn't a JSON object.
    """
    return json_object(text, "adapter_config.json")


@cached_by_text
def parse_config(text: bytes) -> AdapterConfig:
    """Parse and check the text of an adapter_config.json.

    Raises:
        AdapterRejected: the text is malformed, or a setting isn't supported. The message names the
            field and its value.
    """
    config = check_config(text)
    return replace(config, targeting=_lora_config(config.targeting))


def check_config(text: bytes) -> AdapterConfig:
    """Parse and check the text of an adapter_config.json without importing PEFT.

    PEFT's own rules on combining fields aren't checked. In the result, `targeting` is a dict of the
    fields instead of a `peft.LoraConfig`.

    Raises:
        AdapterRejected: as for `parse_config`.
    """
    fields = config_fields(text)
    _check_fields(fields)
    _check_combinations(fields)
    return AdapterConfig(
        r=_rank("r", fields.get("r", 8)),
        alpha=_number("lora_alpha", fields.get("lora_alpha", 8)),
        use_rslora=_flag("use_rslora", fields.get("use_rslora", False)),
        rank_pattern=_pattern("rank_pattern", fields, _rank),
        alpha_pattern=_pattern("alpha_pattern", fields, _number),
        fan_in_fan_out=_flag("fan_in_fan_out", fields.get("fan_in_fan_out", False)),
        use_dora=_flag("use_dora", fields.get("use_dora", False)),
        lora_bias=_flag("lora_bias", fields.get("lora_bias", False)),
        modules_to_save=tuple(_strings("modules_to_save", fields)),
        token_indices=_token_indices(fields),
        targeting=_targeting(fields),
    )


def _check_fields(fields: Mapping[str, Any]) -> None:
    if "peft_type" not in fields:
        raise AdapterRejected("peft_type is missing from adapter_config.json; set it to 'LORA'")
    for name, value in fields.items():
        if name in _SUPPORTED_VALUES:
            if value not in _SUPPORTED_VALUES[name]:
                supported = ", ".join(map(repr, _SUPPORTED_VALUES[name]))
                raise _refusal(name, value, REFUSAL_REASONS.get(name, f"supported: {supported}"))
        elif value and name not in _WITHOUT_EFFECT and name not in _READ:
            raise _refusal(name, value, REFUSAL_REASONS.get(name, UNKNOWN_FIELD))


def _check_combinations(fields: Mapping[str, Any]) -> None:
    """Refuse settings that PEFT supports separately but not together."""
    if fields.get("use_dora") and fields.get("lora_bias"):
        raise AdapterRejected(
            "use_dora=True with lora_bias=True isn't supported: PEFT doesn't implement it"
        )
    if fields.get("use_dora") and fields.get("init_lora_weights") == "mica":
        raise AdapterRejected("use_dora=True with init_lora_weights='mica' isn't supported")


def _targeting(fields: Mapping[str, Any]) -> dict[str, Any]:
    selected = {name: fields[name] for name in _TARGETING if fields.get(name) is not None}
    for name, value in selected.items():
        element_type = _ELEMENT_TYPES.get(name, str)
        values = value if isinstance(value, list) else [value]
        if not all(type(v) is element_type for v in values):
            raise _refusal(name, value, f"expected {element_type.__name__} or a list of them")
    for name in ("target_modules", "exclude_modules"):
        if isinstance(selected.get(name), str):
            _check_regex(name, selected[name])
    for pattern in selected.get("layers_pattern") or ():
        _check_regex("layers_pattern", pattern)
    return selected


def _lora_config(targeting: Mapping[str, Any]) -> Any:
    # Importing PEFT takes seconds, and `check_config` runs in processes without it.
    from peft import LoraConfig

    try:
        return LoraConfig(**targeting)
    except ValueError as error:  # PEFT's own rules on combining these fields
        raise AdapterRejected(f"adapter_config.json: {error}") from None


def _pattern(name: str, fields: Mapping[str, Any], read: Callable[[str, Any], T]) -> dict[str, T]:
    pattern = fields.get(name) or {}
    if not isinstance(pattern, dict):
        raise _refusal(name, pattern, "expected an object")
    for key in pattern:
        _check_regex(name, key)
    return {key: read(f"{name}[{key!r}]", value) for key, value in pattern.items()}


def _pattern_key(patterns: Mapping[str, Any], module: str) -> str:
    from peft.utils.other import get_pattern_key

    key: str = get_pattern_key(patterns, module)
    return key


def _strings(name: str, fields: Mapping[str, Any]) -> list[str]:
    values = fields.get(name) or []
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise _refusal(name, values, "expected a list of names")
    return values


def _token_indices(fields: Mapping[str, Any]) -> dict[str | None, tuple[int, ...]]:
    name = "trainable_token_indices"
    value = fields.get(name)
    by_module: dict[str | None, Any] = value if isinstance(value, dict) else {None: value}
    indices: dict[str | None, tuple[int, ...]] = {}
    for module, ids in by_module.items():
        if ids is not None:
            if not isinstance(ids, list) or not ids or not all(type(i) is int for i in ids):
                raise _refusal(name, value, "expected a list of token ids, or an object of them")
            indices[module] = tuple(ids)
    return indices


def _check_regex(name: str, pattern: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise _refusal(name, pattern, f"not a regular expression: {error}") from None


def _rank(name: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise _refusal(name, value, "expected an integer of at least 1")
    return value


def _number(name: str, value: Any) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    # Compare, because math.isfinite raises for integers that no float can hold.
    if not is_number or not abs(value) <= sys.float_info.max:
        raise _refusal(name, value, "expected a finite number")
    return float(value)


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise _refusal(name, value, "expected true or false")
    return value


def _refusal(name: str, value: Any, reason: str) -> AdapterRejected:
    shown = repr(value)
    shown = shown if len(shown) <= 80 else shown[:77] + "..."
    return AdapterRejected(f"{name}={shown} isn't supported: {reason}")
