"""The documentation of adapters lists every field of adapter_config.json."""

import dataclasses
from pathlib import Path

import pytest
from peft import LoraConfig

PAGE = (Path(__file__).parents[4] / "ops/docs/adapters.md").read_text()


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(LoraConfig)])
def test_the_documentation_mentions_the_field(field: str) -> None:
    assert f"`{field}`" in PAGE or f"`{field} " in PAGE
