"""Finds the modules of the base model that an adapter changes, by PEFT's rules."""

from collections.abc import Callable, Collection, Mapping, Set
from dataclasses import dataclass
from typing import NamedTuple

from shared.errors import AdapterRejected
from worker.lora.base.modules import BaseModules, is_table
from worker.lora.checkpoint.config import AdapterConfig
from worker.lora.patterns.name_patterns import MAX_SHOWN_CHARS

MAX_SHOWN_NAMES = 5
"""Maximum number of modules that an error message lists."""


class TokenSource(NamedTuple):
    """Source of the rows that an adapter replaces in an embedding or a head."""

    module: str
    """Module whose tensor in the file has the rows. For a tied head, it may be the embedding."""
    ids: tuple[int, ...]
    """Ids of the tokens with replaced rows."""


@dataclass(frozen=True, slots=True)
class TrainedModules:
    """Names of the modules that an adapter changes. Each module is in exactly one collection."""

    targets: list[str]
    """Modules with a low-rank term: the embedding, then linears in the model's order."""
    saved: list[str]
    """Modules that are replaced in full."""
    tokens: Mapping[str, TokenSource]
    """Sources of replaced rows, by module name. Only the embedding and the head can occur."""
    is_tied: bool
    """Whether the adapter's tensors for the head must equal those for the embedding."""

    def renamed(self, name_of: Callable[[str], str]) -> "TrainedModules":
        """Return the same modules with other names. `name_of` returns the new name of a module."""
        return TrainedModules(
            [name_of(name) for name in self.targets],
            [name_of(name) for name in self.saved],
            {
                name_of(name): TokenSource(name_of(source.module), source.ids)
                for name, source in self.tokens.items()
            },
            self.is_tied,
        )


def trained_modules(
    config: AdapterConfig, base: BaseModules, *, has_experts: bool = False
) -> TrainedModules:
    """Return the modules of `base` that an adapter with `config` changes.

    With `has_experts`, the adapter may target experts alone.

    Raises:
        AdapterRejected: the adapter targets no module, changes an unsupported module, or changes
            one module in two ways.
    """
    may_be_empty = has_experts or bool(config.target_parameters)
    targets = base.targets(config.targeting, may_be_empty=may_be_empty)
    saved = _saved_modules(config, base)
    tokens = _token_sources(config, base)
    for field, modules in (("modules_to_save", saved), ("trainable_token_indices", tokens)):
        if both := sorted({*modules} & {*targets}):
            raise AdapterRejected(
                f"{field} and target_modules both match {both[0]}; train it in one way only"
            )
    if both := sorted({*saved} & {*tokens}):
        raise AdapterRejected(
            f"trainable_token_indices and modules_to_save both match {both[0]}; train it in one "
            "way only"
        )
    is_tied = bool(base.tied_targets(config.targeting)) or _saves_tied_tables(config, base)
    return TrainedModules(targets, saved, tokens, is_tied)


def _saved_modules(config: AdapterConfig, base: BaseModules) -> list[str]:
    embedding = base.embedding.name if base.embedding else ""
    supported = {embedding, *base.linears, *base.norms}
    ends = frozenset(config.modules_to_save)
    saved = {name for name in base.names if _ends_with(name, ends)}
    if _saves_tied_tables(config, base):
        saved |= {embedding, *([base.head] if base.head else [])}
    for name in sorted(saved):
        if name not in supported or (name in base.linears and name not in base.weights):
            kind = base.others.get(name, "quantised")
            raise AdapterRejected(
                f"modules_to_save matches {name} ({kind}); only linears, norms, the input "
                "embedding and the output head are supported"
            )
    return sorted(saved)


def _saves_tied_tables(config: AdapterConfig, base: BaseModules) -> bool:
    """Return whether PEFT trains the embedding and the head in full and keeps them tied."""
    is_named = any(is_table(name) for name in config.modules_to_save)
    return config.targeting.ensure_weight_tying and base.is_tied and is_named


def _token_sources(config: AdapterConfig, base: BaseModules) -> dict[str, TokenSource]:
    """Return the sources of the rows that the adapter replaces, by module name."""
    sources: dict[str, TokenSource] = {}
    for name, ids in config.token_indices.items():
        module = _table(name, base)
        sources[module] = TokenSource(module, _checked_ids(ids, base.tables[module].shape[0]))
    _share_with_tied_head(sources, config, base)
    head = base.head
    weight = base.weights.get(head or "")
    if head in sources and weight is not None and weight.bias is not None:
        raise AdapterRejected(
            f"trainable_token_indices isn't supported on {head}, which has a bias: PEFT drops "
            "it; train the head with modules_to_save"
        )
    return sources


def _share_with_tied_head(
    sources: dict[str, TokenSource], config: AdapterConfig, base: BaseModules
) -> None:
    """Use the embedding's trained rows for a tied head, too, unless the head has other ids."""
    embedding, head = base.embedding, base.head
    if not base.is_tied or embedding is None or head is None or embedding.name not in sources:
        return
    source = sources[embedding.name]
    if head not in sources or sources[head].ids == source.ids:
        sources[head] = source
    elif config.targeting.ensure_weight_tying:
        raise AdapterRejected(
            "trainable_token_indices differ between modules that ensure_weight_tying ties; use the "
            "same ids for both"
        )


def _table(name: str | None, base: BaseModules) -> str:
    """Return the one embedding or head that `name` matches. None means the embedding."""
    if name is None:
        matches = [base.embedding.name] if base.embedding else []
    else:
        matches = [module for module in base.names if module.endswith(name)]
    if len(matches) == 1 and matches[0] in base.tables:
        return matches[0]
    shown = ", ".join(matches[:MAX_SHOWN_NAMES]) or "no module"
    more = ", ..." if len(matches) > MAX_SHOWN_NAMES else ""
    raise AdapterRejected(
        f"trainable_token_indices={repr(name)[:MAX_SHOWN_CHARS]} isn't supported: it must match "
        f"only the input embedding or only the output head, but matches {shown}{more}"
    )


def _checked_ids(ids: Collection[int], vocab_size: int) -> tuple[int, ...]:
    for token_id in ids:
        if not 0 <= token_id < vocab_size:
            raise AdapterRejected(
                f"trainable_token_indices contains {token_id}, which is outside the vocabulary of "
                f"{vocab_size} tokens"
            )
    if len(set(ids)) < len(ids):
        raise AdapterRejected("trainable_token_indices contains an index twice; list each once")
    return tuple(ids)


def _ends_with(name: str, ends: Set[str]) -> bool:
    return not ends.isdisjoint(name[index:] for index in range(len(name) + 1))
