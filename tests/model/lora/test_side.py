"""Side weights: within the pool's budget, and out of the way of batches that have none."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from kinds import kinds
from lora import made_adapter, made_base, made_pool, wrapped
from tiny import roughen, save_adapter, tiny_model

from worker.lora.adapter import LoRAAdapter
from worker.lora.batch import build_batch
from worker.lora.pool import LoRAPool
from worker.lora.side import SideWeights

BASE = made_base()
Q = {"layers.0.q": 8, "layers.1.q": 8}
PAGE_Q = 2 * 8 * (16 + 16) * 4
SIDE = 2 * 16 * 4


def with_side(name: str, *, seed: int = 0) -> LoRAAdapter:
    """An adapter of one page, and of `SIDE` bytes beside it."""
    adapter = made_adapter(BASE, name, Q, seed=seed)
    scales = {module: torch.full((16,), 2.0) for module in Q}
    return replace(adapter, side=SideWeights(scales=scales))


def test_side_weights_count_in_the_budget() -> None:
    pool = made_pool(BASE, max_bytes=PAGE_Q + SIDE)
    assert pool.can_add(with_side("a"))
    assert not made_pool(BASE, max_bytes=PAGE_Q + SIDE - 1).can_add(with_side("a"))
    pool.add(with_side("a"))
    assert pool.num_bytes == PAGE_Q + SIDE
    assert not pool.can_add(with_side("b", seed=1))
    pool.remove(with_side("a").version)
    assert pool.num_bytes == PAGE_Q
    pool.add(with_side("b", seed=1))
    assert pool.num_bytes == PAGE_Q + SIDE


def test_pages_leave_room_for_side_weights_when_they_grow() -> None:
    pool = made_pool(BASE, max_bytes=3 * (PAGE_Q + SIDE))
    for seed, name in enumerate("abc"):
        assert pool.can_add(with_side(name, seed=seed))
        pool.add(with_side(name, seed=seed))
        assert pool.num_bytes <= 3 * (PAGE_Q + SIDE)
    assert not pool.can_add(with_side("d", seed=3))


def test_side_weights_are_given_back_when_memory_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("out of memory")

    pool = made_pool(BASE)
    monkeypatch.setattr(LoRAPool, "_make_room", fail)
    with pytest.raises(RuntimeError):
        pool.add(with_side("a"))
    assert pool.num_bytes == 0


def test_a_batch_without_side_weights_is_computed_as_ever() -> None:
    pool = made_pool(BASE)
    plain, other = made_adapter(BASE, "plain", Q), with_side("other", seed=1)
    pool.add(plain)
    pool.add(other)
    batch = build_batch(pool, [(plain.version, 3), (None, 2)])
    assert batch is not None
    assert batch.side is None
    mixed = build_batch(pool, [(plain.version, 3), (other.version, 2)])
    assert mixed is not None
    assert mixed.changes(("layers.0.q",))
    assert not mixed.changes(("layers.0.up",))


def test_modules_are_hooked_only_while_an_adapter_needs_it(tmp_path: Path) -> None:
    case = wrapped(roughen(tiny_model("gpt_neox")))
    configs = {name: kinds("gpt_neox")[name] for name in ("all biases", "embedding")}
    folders = [
        save_adapter(tmp_path / str(i), base=roughen(tiny_model("gpt_neox")), seed=i, **config)
        for i, config in enumerate([*configs.values(), configs["all biases"]])
    ]

    def hooked() -> set[str]:
        return {name for name, module in case.model.named_modules() if module._forward_hooks}

    assert hooked() == set()
    first, second, third = (case.load(folder, f"a{i}") for i, folder in enumerate(folders))
    norms = set(case.base.norms)
    assert hooked() == norms | {"gpt_neox.embed_in"}
    case.pool.remove(first)
    case.pool.remove(second)
    assert hooked() == norms
    case.pool.remove(third)
    assert hooked() == set()
    assert case.pool.side.num_bytes == 0


@torch.no_grad()
def test_base_rows_beside_side_weights_are_left_bit_for_bit(tmp_path: Path) -> None:
    case = wrapped(roughen(tiny_model("qwen2")))
    config = kinds("qwen2")["DoRA and biases"]
    version = case.load(save_adapter(tmp_path, base=roughen(tiny_model("qwen2")), **config))
    ids = torch.arange(6, 13).repeat(2, 1)
    plain = case.model(ids).logits
    case.context.batch = build_batch(case.pool, [(None, 7), (version, 7)])
    mixed = case.model(ids).logits
    assert torch.equal(mixed[0], plain[0])
    assert not torch.allclose(mixed[1], plain[1], atol=0.1)
