"""The list of models, as clients see it."""

import openai
import pytest
from served_tiny import BASE, NAMES


async def test_the_base_and_its_adapters_are_listed_with_root_and_parent(
    client: openai.AsyncOpenAI,
) -> None:
    cards = (await client.models.list()).data
    assert [card.id for card in cards] == [BASE, *sorted(NAMES[1:])]
    roots = {card.id: card.model_dump()["root"] for card in cards}
    parents = {card.id: card.model_dump()["parent"] for card in cards}
    assert roots == {name: name for name in NAMES}
    assert parents == {BASE: None} | dict.fromkeys(NAMES[1:], BASE)
    assert {card.object for card in cards} == {"model"}


@pytest.mark.parametrize("name", NAMES)
async def test_each_name_can_be_looked_up(client: openai.AsyncOpenAI, name: str) -> None:
    assert (await client.models.retrieve(name)).id == name


async def test_an_unknown_model_is_not_found(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        await client.models.retrieve("nobody")
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError) as caught:
        await client.chat.completions.create(
            model="nobody", messages=[{"role": "user", "content": "hi"}]
        )
    assert caught.value.code == "model_not_found"
    assert caught.value.param == "model"
    assert "nobody" in caught.value.message
