"""Needs and capabilities: their text form, and reasons why jobs aren't served."""

from dataclasses import replace
from typing import Any

import pytest
from queue_support import make_job

from shared.protocol.adapters import decode_adapter
from shared.protocol.capabilities import (
    EVERYTHING,
    AdapterKind,
    Capabilities,
    Feature,
    Needs,
    decode_capabilities,
    decode_needs,
    encode_capabilities,
    why_unserved,
)
from shared.protocol.embeddings import EmbeddingParams, Pooling
from shared.protocol.jobs import SamplingParams

PLAIN = Capabilities(kinds=frozenset(), features=frozenset(), max_rank=16)
SOME = Capabilities(
    kinds=frozenset({AdapterKind.DORA, AdapterKind.BIAS}),
    features=frozenset({Feature.EMBEDDINGS}),
    max_rank=None,
)
ENTRY = {
    "name": "a",
    "version": "a@1",
    "digest": "1",
    "weights_digest": "1",
    "source": "/a",
    "rank": "8",
    "num_bytes": "1",
    "created_s": "0",
    "state": "ready",
    "kinds": "",
    "reasoning": "",
    "tool_form": "",
}


@pytest.mark.parametrize(
    ("capabilities", "text"),
    [(EVERYTHING, ""), (PLAIN, ";;16"), (SOME, "bias,dora;embeddings;")],
)
def test_the_text_form_is_decoded_again(capabilities: Capabilities, text: str) -> None:
    assert encode_capabilities(capabilities) == text
    assert decode_capabilities(text) == capabilities


def test_kinds_of_later_releases_are_left_out() -> None:
    assert decode_capabilities("bias,dora,new;embeddings;") == SOME
    assert decode_needs("new;;8") == Needs(rank=8)
    assert decode_adapter({**ENTRY, "kinds": "dora,new"}).kinds == {AdapterKind.DORA}


def test_without_workers_or_with_one_that_serves_it_nothing_is_unserved() -> None:
    needs = Needs(kinds=frozenset({AdapterKind.DORA}), rank=64)
    assert why_unserved("adapter a", needs, []) is None
    assert why_unserved("adapter a", needs, [PLAIN, SOME]) is None


@pytest.mark.parametrize("kind", AdapterKind)
def test_the_reason_names_each_kind(kind: AdapterKind) -> None:
    reason = why_unserved("adapter a", Needs(kinds=frozenset({kind}), rank=8), [PLAIN])
    assert reason is not None
    assert "no live worker of this pool serves" in reason
    assert why_unserved("a", Needs(kinds=frozenset({kind})), [PLAIN, EVERYTHING]) is None


def test_the_reason_names_the_largest_rank_that_is_served() -> None:
    workers = [PLAIN, replace(PLAIN, max_rank=32)]
    reason = why_unserved("adapter a", Needs(rank=64), workers)
    assert reason == (
        "adapter a has rank 64, and no live worker of this pool serves ranks above 32: start one "
        "with --engine native"
    )


@pytest.mark.parametrize(
    ("fields", "features"),
    [
        ({}, set()),
        ({"embedding": EmbeddingParams(pooling=Pooling.MEAN)}, {Feature.EMBEDDINGS}),
        ({"sampling": SamplingParams(seed=1, logprob_token_ids=(5,))}, {Feature.LISTED_LOGPROBS}),
    ],
)
def test_a_job_has_the_features_that_not_every_engine_serves(
    fields: dict[str, Any], features: set[Feature]
) -> None:
    assert make_job(**fields).features == features
