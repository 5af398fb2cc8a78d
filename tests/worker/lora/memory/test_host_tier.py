"""The host tier: an LRU cache of adapter images within a budget."""

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from lora import CPU, empty_pool, image_tensor, random_adapter, small_base

from shared.errors import SettingsError
from worker.lora.checkpoint.adapter import LoRAAdapter
from worker.lora.memory.host_tier import HostTier
from worker.lora.memory.layout import AdapterImage, PoolLayout

BASE = small_base()
LAYOUT = PoolLayout(BASE, torch.float32)
Q = {"layers.0.q": 8, "layers.1.q": 8}
BYTES = 2 * 8 * (16 + 16) * 4
"""Bytes of an adapter of rank 8 on q."""


def tier(num_bytes: int) -> HostTier:
    return HostTier(LAYOUT, num_bytes, CPU)


def adapter(number: int, rank: int = 8) -> LoRAAdapter:
    return random_adapter(BASE, "a", dict.fromkeys(Q, rank), seed=number)


def put(host: HostTier, *adapters: LoRAAdapter) -> None:
    for each in adapters:
        host.release(host.put(each))


def check(image: AdapterImage, of: LoRAAdapter) -> None:
    """Check that `image` holds the weights of the adapter `of`."""
    pool = empty_pool(BASE)
    reserved = pool.reserve(image)
    assert reserved is not None
    pool.write(reserved, image)
    expected = LAYOUT.image(of)
    assert (image.version, image.weights_digest) == (of.version, of.weights_digest)
    assert image.group_pages == expected.group_pages
    assert torch.equal(image_tensor(image), image_tensor(expected))


def test_the_least_recently_used_image_is_evicted_if_that_is_allowed() -> None:
    host = tier(3 * BYTES)
    put(host, adapter(1), adapter(2), adapter(3))
    image = host.take(adapter(1).version)
    assert image is not None
    host.release(image)
    host.touch(adapter(2).version)
    left_out = host.put(adapter(5), may_evict=False)
    check(left_out, adapter(5))
    host.release(left_out)
    put(host, adapter(4))
    kept = [adapter(n).version in host for n in (1, 2, 3, 4, 5)]
    assert kept == [True, True, False, True, False]
    assert host.num_bytes == 3 * BYTES


def test_an_image_that_does_not_fit_is_returned_and_evicts_nothing() -> None:
    host = tier(2 * BYTES)
    put(host, adapter(1))
    image = host.put(adapter(2, rank=24))
    check(image, adapter(2, rank=24))
    host.release(image)
    assert [adapter(n).version in host for n in (1, 2)] == [True, False]
    kept = host.take(adapter(1).version)
    check(host.put(adapter(3, rank=16)), adapter(3, rank=16))
    assert kept is not None
    check(kept, adapter(1))
    nothing = tier(0)
    check(nothing.put(adapter(1)), adapter(1))
    assert adapter(1).version not in nothing
    with pytest.raises(SettingsError, match=r"--adapter-host-mb: \d+ MiB can't be allocated"):
        tier(1 << 60)


def test_memory_of_an_image_that_could_not_be_written_is_freed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    host = tier(2 * BYTES)
    with monkeypatch.context() as patched:
        patched.setattr(PoolLayout, "image", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            host.put(adapter(1))
    assert host.num_bytes == 0
    put(host, adapter(1), adapter(2))
    assert host.num_bytes == 2 * BYTES


class Accounts(RuleBasedStateMachine):
    """Adapters of some sizes are put, taken, released and dropped in any order."""

    LIMIT = 4 * BYTES

    def __init__(self) -> None:
        super().__init__()
        self.host = tier(self.LIMIT)
        self.adapters = [adapter(number, rank) for number, rank in enumerate((8, 9, 16, 24, 64))]
        self.read: list[tuple[AdapterImage, LoRAAdapter]] = []

    @rule(number=st.integers(0, 4))
    def put(self, number: int) -> None:
        self.read.append((self.host.put(self.adapters[number]), self.adapters[number]))

    @rule(number=st.integers(0, 4))
    def take(self, number: int) -> None:
        is_there = self.adapters[number].version in self.host
        image = self.host.take(self.adapters[number].version)
        assert (image is not None) == is_there
        if image is not None:
            self.read.append((image, self.adapters[number]))

    @precondition(lambda self: self.read)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(0, len(self.read) - 1))
        self.host.release(self.read.pop(index)[0])

    @rule(number=st.integers(0, 4))
    def drop(self, number: int) -> None:
        self.host.drop(self.adapters[number].version)

    @invariant()
    def the_budget_is_not_exceeded(self) -> None:
        kept = {image.version: image for image, _ in self.read}
        assert self.host.num_bytes <= self.LIMIT
        there = [a for a in self.adapters if a.version in self.host]
        assert sum(LAYOUT.image(a).num_bytes for a in there) <= self.host.num_bytes
        if not kept:
            assert sum(LAYOUT.image(a).num_bytes for a in there) == self.host.num_bytes

    @invariant()
    def images_in_use_are_unchanged(self) -> None:
        for image, of in self.read:
            check(image, of)


TestAccounts = Accounts.TestCase
TestAccounts.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)
