"""Regression tests for bugs that users of other LoRA servers have reported.

Those servers ignored rsLoRA's scaling, failed for ranks that a kernel can't tile, ignored rank
patterns, answered with the base for an adapter that matches no module, or crashed on a batch of
all adapters and the base.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from engines import engine_of, greedy_request, load, random_prompt, run
from reference import check_greedy_along, logits_along, with_adapter
from tiny import save_adapter, tiny_model

from shared.errors import AdapterRejected

NUM_TOKENS = 16
QKVO = ["q_proj", "k_proj", "v_proj", "o_proj"]


def assert_exact(root: Path, *configs: dict[str, Any], max_num_seqs: int = 16) -> None:
    """Check one batch with a request for each adapter and the base against PEFT."""
    folders: dict[str, Path] = {
        f"a{i}": save_adapter(root / str(i), seed=i, scale=0.2, **config)
        for i, config in enumerate(configs)
    }
    engine, versions = engine_of(load(tiny_model()), folders, max_num_seqs=max_num_seqs)
    prompts = {name: random_prompt(i, 5 + i) for i, name in enumerate([*folders, "base"])}
    requests = [
        greedy_request(name, prompt, NUM_TOKENS, versions.get(name))
        for name, prompt in prompts.items()
    ]
    tokens = run(engine, requests)
    for name, prompt in prompts.items():
        model = tiny_model()
        model = with_adapter(model, folders[name]) if name in folders else model
        got = tokens[name]  # type: ignore[index]
        check_greedy_along(logits_along(model, prompt, got), got)


def test_rslora_scale(tmp_path: Path) -> None:
    ranks = (16, 64)
    assert_exact(
        tmp_path,
        *({"r": r, "lora_alpha": 8, "use_rslora": True, "target_modules": QKVO} for r in ranks),
    )


def test_rank_24_and_48(tmp_path: Path) -> None:
    assert_exact(
        tmp_path, *({"r": r, "lora_alpha": 2 * r, "target_modules": QKVO} for r in (24, 48))
    )


def test_pattern_ranks(tmp_path: Path) -> None:
    patterns = {"q_proj": 24, r".*\.1\..*v_proj": 3}
    config = {"r": 8, "target_modules": QKVO, "rank_pattern": patterns}
    assert_exact(
        tmp_path, config, config | {"alpha_pattern": {"q_proj": 40}}, {"target_modules": QKVO}
    )


def test_no_module_matched_is_refused(tmp_path: Path) -> None:
    folder = save_adapter(tmp_path, target_modules=QKVO)
    file = folder / "adapter_config.json"
    config = json.loads(file.read_text()) | {"target_modules": ["Wqkv"]}
    file.write_text(json.dumps(config))
    with pytest.raises(AdapterRejected, match="target_modules matches no module of the base"):
        engine_of(load(tiny_model()), {"a": folder})


def test_n_plus_1_adapters_and_the_base_in_one_batch(tmp_path: Path) -> None:
    num_adapters = 9
    configs = [{"r": 1 + i, "target_modules": QKVO[: 1 + i % 4]} for i in range(num_adapters)]
    assert_exact(tmp_path, *configs, max_num_seqs=num_adapters + 1)
