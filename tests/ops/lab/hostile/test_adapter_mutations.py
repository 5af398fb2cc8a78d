"""Mutated adapters: repeatable, of every kind, and some of them can still be served."""

import random
from collections import Counter
from pathlib import Path

import pytest

from ops.lab.hostile.adapter_mutations import MUTATIONS, Mutation, Sent, mutated, read_adapter
from ops.lab.hostile.adapters import GOOD
from shared.errors import AdapterRejected
from worker.lora.checkpoint.adapter_files import AdapterFiles

CONFIG = (GOOD / "adapter_config.json").read_bytes()
WEIGHTS = (GOOD / "adapter_model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def good() -> Sent:
    return read_adapter(CONFIG, WEIGHTS)


def is_served(sent: Sent, folder: Path) -> bool:
    (folder / "adapter_config.json").write_bytes(sent.config_bytes())
    (folder / "adapter_model.safetensors").write_bytes(sent.weights(None))
    try:
        AdapterFiles(folder).check()
    except AdapterRejected:
        return False
    return True


def test_an_adapter_without_changes_is_the_good_one(good: Sent, tmp_path: Path) -> None:
    assert is_served(good, tmp_path)
    assert good.data == WEIGHTS[-len(good.data) :]


def test_a_seed_gives_the_same_adapters_again(good: Sent) -> None:
    first, second = ([mutated(rng, good) for _ in range(20)] for rng in map(random.Random, (7, 7)))
    assert first == second
    assert mutated(random.Random(8), good) != first[0]


@pytest.mark.parametrize("mutation", dict.fromkeys(MUTATIONS), ids=lambda each: each.__name__)
def test_each_mutation_changes_the_files(mutation: Mutation, good: Sent) -> None:
    sent = [mutation(random.Random(seed), good) for seed in range(5)]
    files = {(each.config_bytes(), each.weights(None)) for each in sent}
    assert files != {(good.config_bytes(), good.weights(None))}


def test_some_mutated_adapters_pass_the_check_of_their_files(good: Sent, tmp_path: Path) -> None:
    rng = random.Random(1)
    outcomes = Counter(is_served(mutated(rng, good), tmp_path) for _ in range(60))
    assert min(outcomes[True], outcomes[False]) >= 5
