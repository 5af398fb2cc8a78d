"""Reads adapter_config.json and refuses settings that can't be served exactly.

There are three kinds of fields in PEFT's `LoraConfig`: supported fields, fields without effect at
inference, and unsupported fields, which must be null, false, 0 or empty. Unknown fields are treated
as unsupported, because ignoring their values could silently give wrong answers.
"""

import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from shared.errors import AdapterRejected
from shared.json_budget import JsonBudget
from worker.lora.base.targeting import Targeting
from worker.lora.checkpoint.json_file import cached_by_text, json_object
from worker.lora.checkpoint.unsupported_config import REFUSAL_REASONS, UNKNOWN_FIELD
from worker.lora.patterns.name_patterns import NamePatterns, PatternValues, shorten
from worker.lora.patterns.pattern_form import PatternForm

MAX_CONFIG_BYTES = 1 << 20
MAX_VALUES = 1 << 16
"""Maximum number of values in all lists and objects of an adapter_config.json.

A file that sets the rank of each linear in 400 layers has 2,800 values."""
ALL_LINEAR = "all-linear"

_READ = frozenset(
    (
        "target_modules",
        "target_parameters",
        "peft_version",
        "exclude_modules",
        "layers_to_transform",
        "layers_pattern",
        "ensure_weight_tying",
        "modules_to_save",
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
_RELEASE = re.compile(r"(\d{1,4})\.(\d{1,4})(?!\d)", re.ASCII)
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AdapterConfig:
    """Settings in an adapter_config.json that affect what the adapter computes."""

    r: int
    alpha: float
    use_rslora: bool
    rank_pattern: PatternValues[int]
    alpha_pattern: PatternValues[float]
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
    targeting: Targeting
    """The fields that select modules for low-rank terms."""
    target_parameters: tuple[str, ...] = ()
    """Name suffixes of the parameters, such as experts' weights, that get low-rank terms."""
    peft_version: tuple[int, ...] = ()
    """Release of PEFT that saved the adapter, such as (0, 21). Empty if the file doesn't say it."""
    trained_name: Callable[[str], str] = str
    """Function that returns the name that a served module had in the model that was trained.

    The patterns are matched against these names."""

    def resolve(self, modules: Sequence[str]) -> None:
        """Match the rank and alpha patterns against all `modules`.

        Call this before `rank` and `scaling`.

        Raises:
            AdapterRejected: matching takes too much time or memory.
        """
        trained = [self.trained_name(module) for module in modules]
        self.rank_pattern.resolve(trained)
        self.alpha_pattern.resolve(trained)

    def rank(self, module: str) -> int:
        """Return the rank of a targeted module."""
        return self.rank_pattern.get(self.trained_name(module), self.r)

    def scaling(self, module: str) -> float:
        """Return the factor by which PEFT multiplies a targeted module's `B @ A`."""
        alpha = self.alpha_pattern.get(self.trained_name(module), self.alpha)
        rank = self.rank(module)
        return alpha / math.sqrt(rank) if self.use_rslora else alpha / rank


def read_config(path: Path) -> bytes:
    """Read an adapter_config.json. Raises AdapterRejected if it exceeds MAX_CONFIG_BYTES."""
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise AdapterRejected(f"{path} has more than {MAX_CONFIG_BYTES} bytes")
    return path.read_bytes()


@cached_by_text
def config_fields(text: bytes) -> Mapping[str, Any]:
    """Parse an adapter_config.json without checks. Raises AdapterRejected if it isn't an object."""
    return json_object(text, "adapter_config.json", JsonBudget(max_values=MAX_VALUES))


@cached_by_text
def parse_config(text: bytes, may_be_slow: bool) -> AdapterConfig:
    """Parse and check the text of an adapter_config.json.

    With `may_be_slow`, patterns that can't be matched in linear time are allowed.

    Raises:
        AdapterRejected: the text is malformed, or a setting isn't supported. The message names the
            field and its value.
    """
    fields = config_fields(text)
    _check_fields(fields)
    _check_combinations(fields)
    return AdapterConfig(
        r=_rank("r", fields.get("r", 8)),
        alpha=_number("lora_alpha", fields.get("lora_alpha", 8)),
        use_rslora=_flag("use_rslora", fields.get("use_rslora", False)),
        rank_pattern=_pattern("rank_pattern", fields, _rank, may_be_slow),
        alpha_pattern=_pattern("alpha_pattern", fields, _number, may_be_slow),
        fan_in_fan_out=_flag("fan_in_fan_out", fields.get("fan_in_fan_out", False)),
        use_dora=_flag("use_dora", fields.get("use_dora", False)),
        lora_bias=_flag("lora_bias", fields.get("lora_bias", False)),
        modules_to_save=tuple(_strings("modules_to_save", fields)),
        token_indices=_token_indices(fields),
        targeting=_targeting(fields, may_be_slow),
        target_parameters=tuple(_strings("target_parameters", fields)),
        peft_version=_release(fields.get("peft_version")),
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
    for name in ("layers_to_transform", "layers_pattern"):
        if isinstance(fields.get("target_modules"), str) and fields.get(name) is not None:
            raise AdapterRejected(f"`{name}` cannot be used when `target_modules` is a str.")
    if fields.get("layers_pattern") and fields.get("layers_to_transform") is None:
        raise AdapterRejected(
            "When `layers_pattern` is specified, `layers_to_transform` must also be specified."
        )
    if fields.get("use_dora") and fields.get("init_lora_weights") == "mica":
        raise AdapterRejected("use_dora=True with init_lora_weights='mica' isn't supported")


def _targeting(fields: Mapping[str, Any], may_be_slow: bool) -> Targeting:
    def patterns(name: str, values: list[str], form: PatternForm) -> NamePatterns:
        return NamePatterns(name, values, form, may_be_slow=may_be_slow)

    def names_or_pattern(name: str) -> frozenset[str] | NamePatterns | None:
        value = fields.get(name)
        if isinstance(value, str):
            return patterns(name, [value], PatternForm.NAME)
        return None if value is None else frozenset(_one_or_more(name, fields, str))

    targets = names_or_pattern("target_modules")
    is_all_linear = str(fields.get("target_modules")).lower() == ALL_LINEAR
    saved = _strings("modules_to_save", fields)
    layers_pattern = _one_or_more("layers_pattern", fields, str)
    return Targeting(
        names=targets if isinstance(targets, frozenset) else None,
        pattern=targets if isinstance(targets, NamePatterns) and not is_all_linear else None,
        is_all_linear=is_all_linear,
        excluded=names_or_pattern("exclude_modules") or frozenset(),
        saved=patterns("modules_to_save", saved, PatternForm.PART),
        saved_names=saved,
        layers=frozenset(_one_or_more("layers_to_transform", fields, int)) or None,
        layers_pattern=(
            patterns("layers_pattern", layers_pattern, PatternForm.LAYER)
            if layers_pattern
            else None
        ),
        ensure_weight_tying=_flag(
            "ensure_weight_tying", fields.get("ensure_weight_tying") or False
        ),
    )


def _one_or_more(name: str, fields: Mapping[str, Any], element: type[T]) -> list[T]:
    """Return the values of a field that holds one value or a list of them."""
    value = fields.get(name)
    values = value if isinstance(value, list) else [] if value in (None, "") else [value]
    if not all(type(each) is element for each in values):
        raise _refusal(name, value, f"expected {element.__name__} or a list of them")
    return values


def _pattern(
    name: str, fields: Mapping[str, Any], read: Callable[[str, Any], T], may_be_slow: bool
) -> PatternValues[T]:
    pattern = fields.get(name) or {}
    if not isinstance(pattern, dict):
        raise _refusal(name, pattern, "expected an object")
    values = {key: read(f"{name}[{key!r}]", value) for key, value in pattern.items()}
    return PatternValues(name, values, may_be_slow=may_be_slow)


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


def _release(version: Any) -> tuple[int, ...]:
    """Return the first two numbers of a version such as "0.21.2", or () if it isn't one."""
    match = _RELEASE.match(version) if isinstance(version, str) else None
    return (int(match[1]), int(match[2])) if match else ()


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
    return AdapterRejected(f"{shorten(name)}={shorten(repr(value))} isn't supported: {reason}")
