"""Needs of adapters and requests, and capabilities of workers.

Workers of one pool may have different engines. The queue gives a worker only jobs that it serves.
Needs and capabilities have the same text form, `KINDS;FEATURES;RANK`, in which commas separate
kinds and features. `shared/store/lua/capabilities.lua` compares the two, so a change of the form
needs a change there, too.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum


class AdapterKind(StrEnum):
    """Part of an adapter that isn't a plain LoRA term of a linear layer."""

    DORA = "dora"
    """Magnitudes of DoRA."""
    BIAS = "bias"
    """Trained biases of the base model or of the matrices B."""
    MODULES_TO_SAVE = "modules_to_save"
    """Modules of the base model that the adapter replaces completely."""
    EMBEDDING = "embedding"
    """Low-rank change of the input embedding."""
    LM_HEAD = "lm_head"
    """Low-rank change of the output head."""
    TOKENS = "tokens"
    """Trained rows for single tokens in the input embedding or the output head."""


class Feature(StrEnum):
    """Property of a request that not every engine serves."""

    EMBEDDINGS = "embeddings"
    """The request asks for embeddings."""
    IMAGES = "images"
    """The request has images. Workers whose base model reads no images also count as serving this
    feature, because the front end refuses images for such a base model."""
    LISTED_LOGPROBS = "listed_logprobs"
    """The request asks for the log-probabilities of listed tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """Capabilities that a job requires from its worker."""

    kinds: frozenset[AdapterKind] = frozenset()
    features: frozenset[Feature] = frozenset()
    rank: int = 0
    """Largest LoRA rank of the adapter's modules; 0 if the job has no adapter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """Capabilities of a worker in addition to text generation with plain LoRA."""

    kinds: frozenset[AdapterKind]
    features: frozenset[Feature]
    max_rank: int | None
    """Largest LoRA rank; None if only memory limits the rank."""

    @property
    def is_everything(self) -> bool:
        """Whether the worker serves every job."""
        return self == EVERYTHING

    def serves(self, needs: Needs) -> bool:
        """Return whether the worker serves jobs with these needs."""
        return (
            needs.kinds <= self.kinds
            and needs.features <= self.features
            and (self.max_rank is None or needs.rank <= self.max_rank)
        )


EVERYTHING = Capabilities(kinds=frozenset(AdapterKind), features=frozenset(Feature), max_rank=None)
"""Capabilities of a worker that serves every job."""
WITHOUT_IMAGES = replace(EVERYTHING, features=EVERYTHING.features - {Feature.IMAGES})
"""Capabilities of a worker that serves every job without images."""


def encode_capabilities(capabilities: Capabilities) -> str:
    """Return the text form. Equal capabilities have equal texts. `EVERYTHING` has an empty text."""
    if capabilities.is_everything:
        return ""
    max_rank = "" if capabilities.max_rank is None else str(capabilities.max_rank)
    return ";".join(
        (encode_words(capabilities.kinds), encode_words(capabilities.features), max_rank)
    )


def decode_capabilities(text: str) -> Capabilities:
    """Return the capabilities with this text form. Unknown words are left out."""
    if not text:
        return EVERYTHING
    kinds, features, max_rank = text.split(";")
    return Capabilities(
        kinds=decode_kinds(kinds),
        features=_features(features),
        max_rank=int(max_rank) if max_rank else None,
    )


def decode_needs(text: str) -> Needs:
    """Return the needs with this text form. Words of later releases are left out."""
    kinds, features, rank = text.split(";")
    return Needs(kinds=decode_kinds(kinds), features=_features(features), rank=int(rank or 0))


def decode_kinds(text: str) -> frozenset[AdapterKind]:
    """Return the kinds in the text of a registry entry. Unknown kinds are left out."""
    return frozenset(AdapterKind(word) for word in text.split(",") if word in set(AdapterKind))


def why_unserved(model: str, needs: Needs, workers: Sequence[Capabilities]) -> str | None:
    """Return the reason why no worker serves `model`, or None if a worker serves it.

    `needs` are the needs of a job of the model. Without workers, the result is None, because the
    next worker may serve the job.
    """
    if not workers or any(worker.serves(needs) for worker in workers):
        return None
    reason = _first_lacking(needs, workers) or _combination(needs)
    return f"{model} {reason}: {_solution(needs)}"


def what_exceeds(needs: Needs, worker: Capabilities) -> str | None:
    """Return a description of a need that the worker doesn't serve; None if it serves all.

    An example of a description is "is a DoRA adapter".
    """
    if kinds := sorted(needs.kinds - worker.kinds):
        return _OF_KIND[kinds[0]][0]
    if features := sorted(needs.features - worker.features):
        return _OF_FEATURE[features[0]][0]
    return None if worker.serves(needs) else f"has rank {needs.rank}, above {worker.max_rank}"


_OF_KIND = {
    AdapterKind.DORA: ("is a DoRA adapter", "DoRA"),
    AdapterKind.BIAS: ("changes biases", "changed biases"),
    AdapterKind.MODULES_TO_SAVE: ("replaces whole modules (modules_to_save)", "modules_to_save"),
    AdapterKind.EMBEDDING: ("changes the input embedding", "changed embeddings"),
    AdapterKind.LM_HEAD: ("changes the output head", "changed output heads"),
    AdapterKind.TOKENS: (
        "changes single tokens (trainable_token_indices)",
        "trainable_token_indices",
    ),
}
_OF_FEATURE = {
    Feature.EMBEDDINGS: ("is asked for embeddings", "requests for embeddings"),
    Feature.IMAGES: ("is sent images", "images"),
    Feature.LISTED_LOGPROBS: ("is asked for logprob_token_ids", "logprob_token_ids"),
}


def _first_lacking(needs: Needs, workers: Sequence[Capabilities]) -> str | None:
    """Return a message about the first need that no worker serves; None if all are served."""
    kinds = frozenset[AdapterKind]().union(*(worker.kinds for worker in workers))
    features = frozenset[Feature]().union(*(worker.features for worker in workers))
    lacking = [_OF_KIND[kind] for kind in sorted(needs.kinds - kinds)]
    lacking += [_OF_FEATURE[feature] for feature in sorted(needs.features - features)]
    for property_, object_ in lacking:
        return f"{property_}, and no live worker of this pool serves {object_}"
    ranks = [worker.max_rank for worker in workers if worker.max_rank is not None]
    if len(ranks) == len(workers) and max(ranks) < needs.rank:
        most = f"ranks above {max(ranks)}"
        return f"has rank {needs.rank}, and no live worker of this pool serves {most}"
    return None


def _solution(needs: Needs) -> str:
    if Feature.IMAGES not in needs.features:
        return "start one with --engine native"
    if needs.kinds or len(needs.features) > 1:  # only the native engine serves the others
        return "send the request without images"
    return "start one with --engine vllm"


def _combination(needs: Needs) -> str:
    words = [_OF_KIND[kind][1] for kind in sorted(needs.kinds)]
    words += [_OF_FEATURE[feature][1] for feature in sorted(needs.features)]
    words += [f"rank {needs.rank}"] if needs.rank else []
    return f"needs {', '.join(words)}, and no live worker of this pool serves all of them"


def _features(text: str) -> frozenset[Feature]:
    return frozenset(Feature(word) for word in text.split(",") if word in set(Feature))


def encode_words(words: Iterable[AdapterKind | Feature]) -> str:
    """Return kinds or features as text, in the form that the registry and Lua scripts use."""
    return ",".join(sorted(words))
