"""The page on adapters names everything that their configuration can hold."""

import dataclasses
from pathlib import Path

import pytest
from peft import LoraConfig

PAGE = (Path(__file__).parents[4] / "ops/docs/adapters.md").read_text()


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(LoraConfig)])
def test_the_page_on_adapters_tells_what_becomes_of_each_field(field: str) -> None:
    assert f"`{field}`" in PAGE or f"`{field} " in PAGE
