"""Reads adapter_config.json: what is served of it, and by which scale.

Every field is known here by name. Some are served, some change nothing at inference, and all
others must hold what means "not used", or the adapter is refused: a setting that is skipped
silently gives answers that look right and aren't.
"""

import math
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from peft import LoraConfig
from peft.utils.other import get_pattern_key

from shared.errors import AdapterRejected
from worker.lora.checkpoint.json_file import json_object
from worker.lora.checkpoint.refusal_reasons import WHY_NOT
from worker.lora.checkpoint.text_cache import kept

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
        "eva_config",  # how lora_A was first drawn; the base stays as it is
        "inference_mode",
        "lora_dropout",
        "megatron_core",  # used with megatron_config alone
        "peft_version",
        "qalora_group_size",  # used with use_qalora alone
        "revision",
        "runtime_config",  # where training keeps what
    )
)
_SERVED_VALUES: dict[str, tuple[object, ...]] = {
    "peft_type": ("LORA",),
    "task_type": (None, "CAUSAL_LM"),
    "bias": ("none", "all", "lora_only"),  # whichever were trained are in the file
    "init_lora_weights": (None, True, False, "gaussian", "eva", "orthogonal", "mica"),
}
_KINDS: Mapping[str, type] = {"layers_to_transform": int, "ensure_weight_tying": bool}

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AdapterConfig:
    """What of an adapter_config.json says how the adapter computes."""

    r: int
    alpha: float
    use_rslora: bool
    rank_pattern: Mapping[str, int]
    alpha_pattern: Mapping[str, float]
    fan_in_fan_out: bool
    """Whether the targeted weights are stored as `[in, out]`, as GPT-2's are."""
    use_dora: bool
    lora_bias: bool
    """Whether B has a bias."""
    modules_to_save: tuple[str, ...]
    """Ends of names of modules that are trained whole."""
    token_indices: Mapping[str | None, tuple[int, ...]]
    """Tokens whose rows are trained, by the end of a module's name; None: the embedding's."""
    targeting: Any
    """A `peft.LoraConfig` with the fields that choose modules, for `BaseModules.targets`."""

    def rank(self, module: str) -> int:
        """The rank of a targeted module."""
        return self.rank_pattern.get(get_pattern_key(self.rank_pattern, module), self.r)

    def scaling(self, module: str) -> float:
        """What PEFT multiplies a targeted module's `B @ A` by."""
        alpha = self.alpha_pattern.get(get_pattern_key(self.alpha_pattern, module), self.alpha)
        rank = self.rank(module)
        return alpha / math.sqrt(rank) if self.use_rslora else alpha / rank


def read_config(path: Path) -> bytes:
    """The text of the file `path`.

    Raises:
        AdapterRejected: it is far too long.
    """
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise AdapterRejected(f"{path} has more than {MAX_CONFIG_BYTES} bytes")
    return path.read_bytes()


@kept
def parse_config(text: bytes) -> AdapterConfig:
    """The configuration in the text of an adapter_config.json.

    Raises:
        AdapterRejected: it is unreadable, or asks for what isn't served; the message names the
            field and its value.
    """
    fields = json_object(text, "adapter_config.json")
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
        raise AdapterRejected("peft_type is missing from adapter_config.json")
    for name, value in fields.items():
        if name in _SERVED_VALUES:
            is_served = value in _SERVED_VALUES[name]
        else:
            is_served = name in _WITHOUT_EFFECT or name in _READ or not value
        if not is_served:
            raise _refusal(name, value, WHY_NOT.get(name))


def _check_combinations(fields: Mapping[str, Any]) -> None:
    """What PEFT doesn't have together, though it has each alone."""
    if fields.get("use_dora") and fields.get("lora_bias"):
        raise AdapterRejected("use_dora and lora_bias aren't served together: PEFT has no such")
    if fields.get("use_dora") and fields.get("init_lora_weights") == "mica":
        raise AdapterRejected("use_dora isn't served with init_lora_weights='mica'")


def _targeting(fields: Mapping[str, Any]) -> Any:
    chosen = {name: fields[name] for name in _TARGETING if fields.get(name) is not None}
    for name, value in chosen.items():
        kind = _KINDS.get(name, str)
        values = value if isinstance(value, list) else [value]
        if not all(type(v) is kind for v in values):
            raise _refusal(name, value, f"expected {kind.__name__} or a list of them")
    for name in ("target_modules", "exclude_modules"):
        if isinstance(chosen.get(name), str):
            _check_regex(name, chosen[name])
    for pattern in chosen.get("layers_pattern") or ():
        _check_regex("layers_pattern", pattern)
    try:
        return LoraConfig(**chosen)
    except ValueError as error:  # PEFT's own rules on which of these go together
        raise AdapterRejected(f"adapter_config.json: {error}") from None


def _pattern(name: str, fields: Mapping[str, Any], read: Callable[[str, Any], T]) -> dict[str, T]:
    pattern = fields.get(name) or {}
    if not isinstance(pattern, dict):
        raise _refusal(name, pattern, "expected an object")
    for key in pattern:
        _check_regex(name, key)
    return {key: read(f"{name}[{key!r}]", value) for key, value in pattern.items()}


def _strings(name: str, fields: Mapping[str, Any]) -> list[str]:
    values = fields.get(name) or []
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise _refusal(name, values, "expected a list of names")
    return values


def _token_indices(fields: Mapping[str, Any]) -> dict[str | None, tuple[int, ...]]:
    name = "trainable_token_indices"
    value = fields.get(name)
    of_modules: dict[str | None, Any] = value if isinstance(value, dict) else {None: value}
    found: dict[str | None, tuple[int, ...]] = {}
    for module, ids in of_modules.items():
        if ids is not None:
            if not isinstance(ids, list) or not ids or not all(type(i) is int for i in ids):
                raise _refusal(name, value, "expected lists of token ids")
            found[module] = tuple(ids)
    return found


def _check_regex(name: str, pattern: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise _refusal(name, pattern, f"no regular expression: {error}") from None


def _rank(name: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise _refusal(name, value, "a rank is a whole number from 1 on")
    return value


def _number(name: str, value: Any) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    # Comparisons, as math.isfinite raises for whole numbers that no float can hold.
    if not is_number or not abs(value) <= sys.float_info.max:
        raise _refusal(name, value, "expected a finite number")
    return float(value)


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise _refusal(name, value, "expected true or false")
    return value


def _refusal(name: str, value: Any, why: str | None) -> AdapterRejected:
    shown = repr(value)
    shown = shown if len(shown) <= 80 else shown[:77] + "..."
    return AdapterRejected(f"{name}={shown} isn't served" + (f": {why}" if why else ""))
