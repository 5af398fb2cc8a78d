"""A checked adapter names its parts beside plain LoRA, and so does its registry entry."""

from pathlib import Path
from typing import Any

import pytest
from adapter_folders import read_adapter
from lora import wrap
from tiny import roughen, save_adapter, tiny_model

from shared.protocol.capabilities import AdapterKind
from worker.lora.base.modules import BaseModules

DORA, BIAS, SAVED = AdapterKind.DORA, AdapterKind.BIAS, AdapterKind.MODULES_TO_SAVE
EMBEDDING, HEAD, TOKENS = AdapterKind.EMBEDDING, AdapterKind.LM_HEAD, AdapterKind.TOKENS
Q = {"target_modules": ["q_proj"]}


@pytest.fixture(scope="module")
def base() -> BaseModules:
    return wrap(roughen(tiny_model("qwen2"))).base  # its attention has biases


@pytest.mark.parametrize(
    ("fields", "kinds"),
    [
        ({**Q, "use_rslora": True, "alpha_pattern": {"q_proj": 3}}, set()),
        ({**Q, "use_dora": True}, {DORA}),
        ({**Q, "lora_bias": True}, {BIAS}),
        ({**Q, "bias": "all"}, {BIAS}),
        ({**Q, "modules_to_save": ["model.norm"]}, {SAVED}),
        ({**Q, "modules_to_save": ["k_proj"], "use_dora": True}, {SAVED, DORA}),
        ({"target_modules": ["embed_tokens"]}, {EMBEDDING}),
        ({"target_modules": ["q_proj", "lm_head"]}, {HEAD}),
        ({**Q, "trainable_token_indices": [7, 3]}, {TOKENS}),
    ],
)
def test_an_adapter_names_its_parts(
    base: BaseModules, tmp_path: Path, fields: dict[str, Any], kinds: set[AdapterKind]
) -> None:
    folder = save_adapter(tmp_path / "a", "qwen2", **fields)
    adapter = read_adapter(base, folder)
    assert adapter.registry_entry("/a").kinds == kinds
