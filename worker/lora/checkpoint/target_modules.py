"""Which modules of a base an adapter changes: by low rank, whole, or in the rows of some tokens."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from shared.errors import AdapterRejected
from worker.lora.base.modules import BaseModules, is_table
from worker.lora.checkpoint.config import AdapterConfig


class TokenSource(NamedTuple):
    """Rows of an embedding or a head that an adapter replaces."""

    module: str
    """Under whose name they are in the file: a tied head has the embedding's."""
    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Trained:
    """The modules by name; no module is in two of the three."""

    targets: list[str]
    """With a low-rank term: the embedding, and linears in the model's order."""
    saved: list[str]
    """As a whole."""
    tokens: Mapping[str, TokenSource]
    """In some rows: the embedding, the head, or both."""
    is_tied: bool
    """Whether what the adapter has for the head must equal what it has for the embedding."""


def trained_modules(config: AdapterConfig, base: BaseModules) -> Trained:
    """What an adapter of `config` changes in `base`, by PEFT's rules.

    Raises:
        AdapterRejected: it changes nothing, something that isn't served, or something twice.
    """
    targets = base.targets(config.targeting)
    saved = _saved(config, base)
    tokens = _tokens(config, base)
    for field, modules in (("modules_to_save", saved), ("trainable_token_indices", tokens)):
        if both := sorted({*modules} & {*targets}):
            raise AdapterRejected(f"{field} and target_modules both match {both[0]}")
    if both := sorted({*saved} & {*tokens}):
        raise AdapterRejected(f"trainable_token_indices and modules_to_save both match {both[0]}")
    is_tied = bool(base.tied_targets(config.targeting)) or _ties_saved(config, base)
    return Trained(targets, saved, tokens, is_tied)


def _saved(config: AdapterConfig, base: BaseModules) -> list[str]:
    embedding = base.embedding.name if base.embedding else ""
    servable = {embedding, *base.linears, *base.norms}
    found = {name for name in _names(base) if _ends_with(name, config.modules_to_save)}
    if _ties_saved(config, base):
        found |= {embedding, *([base.head] if base.head else [])}
    for name in sorted(found):
        if name not in servable or (name in base.linears and name not in base.weights):
            kind = base.others.get(name, "quantised")
            raise AdapterRejected(
                f"modules_to_save matches {name} ({kind}); only linears, norms, the input "
                "embedding and the output head are served"
            )
    return sorted(found)


def _ties_saved(config: AdapterConfig, base: BaseModules) -> bool:
    """Whether PEFT saves embedding and head together, as either is named and they are tied."""
    is_named = any(is_table(name) for name in config.modules_to_save)
    return bool(config.targeting.ensure_weight_tying) and base.is_tied and is_named


def _tokens(config: AdapterConfig, base: BaseModules) -> dict[str, TokenSource]:
    """By module."""
    found: dict[str, TokenSource] = {}
    for name, ids in config.token_indices.items():
        module = _table(name, base)
        found[module] = TokenSource(module, _checked(ids, base.tables[module].shape[0]))
    _share(found, config, base)
    head = base.head
    weight = base.weights.get(head or "")
    if head in found and weight is not None and weight.bias is not None:
        raise AdapterRejected(
            f"trainable_token_indices isn't served on {head}, which has a bias: PEFT loses it"
        )
    return found


def _share(found: dict[str, TokenSource], config: AdapterConfig, base: BaseModules) -> None:
    """Let a tied head have the embedding's rows."""
    embedding, head = base.embedding, base.head
    if not base.is_tied or embedding is None or head is None or embedding.name not in found:
        return
    source = found[embedding.name]
    if head not in found or found[head].ids == source.ids:
        found[head] = source
    elif config.targeting.ensure_weight_tying:
        raise AdapterRejected(
            "trainable_token_indices differ between modules that ensure_weight_tying ties"
        )


def _table(name: str | None, base: BaseModules) -> str:
    """The one module that `name` stands for, an embedding or a head; None is the embedding."""
    if name is None:
        found = [base.embedding.name] if base.embedding else []
    else:
        found = [module for module in _names(base) if module.endswith(name)]
    if len(found) == 1 and found[0] in base.tables:
        return found[0]
    raise AdapterRejected(
        f"trainable_token_indices={name!r} isn't served: it must match the input embedding or "
        f"the output head alone, and matches {', '.join(found) or 'nothing'}"
    )


def _checked(ids: Collection[int], vocab_size: int) -> tuple[int, ...]:
    for token_id in ids:
        if not 0 <= token_id < vocab_size:
            raise AdapterRejected(
                f"trainable_token_indices has {token_id}, outside of the vocabulary of {vocab_size}"
            )
    if len(set(ids)) < len(ids):
        raise AdapterRejected("trainable_token_indices has an index twice")
    return tuple(ids)


def _names(base: BaseModules) -> list[str]:
    embedding = [base.embedding.name] if base.embedding else []
    return [*embedding, *base.linears, *base.others]


def _ends_with(name: str, ends: Collection[str]) -> bool:
    return any(name.endswith(end) for end in ends)
