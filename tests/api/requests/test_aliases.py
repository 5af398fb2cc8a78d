"""Names that other servers have for request fields."""

from dataclasses import replace
from typing import Any

import pytest
from translated_jobs import chat, completion

from api.requests.aliases import ALIASES
from shared.errors import JobFailed

VALUES: dict[str, Any] = {
    "guided_grammar": 'root ::= "a"',
    "guided_json": {"type": "object"},
    "guided_regex": "a+",
    "max_tokens": 3,
    "min_tokens": 2,
    "repetition_penalty": 1.3,
    "seed": 7,
}


@pytest.mark.parametrize("make", [chat, completion])
@pytest.mark.parametrize(("alias", "name"), ALIASES.items())
def test_an_alias_makes_the_job_of_its_field(make: Any, alias: str, name: str) -> None:
    assert make(**{alias: VALUES[name]}) == make(**{name: VALUES[name]})
    assert make(**{alias: None}) == make()
    with pytest.raises(JobFailed, match=f"{alias} can't be combined with {name}") as failure:
        make(**{alias: VALUES[name], name: VALUES[name]})
    assert failure.value.error.param == alias


@pytest.mark.parametrize("name", ["max_tokens", "n_predict"])
@pytest.mark.parametrize("number", [-1, -2])
def test_a_negative_number_of_tokens_is_no_limit(name: str, number: int) -> None:
    assert chat(**{name: number}) == chat()


@pytest.mark.parametrize(
    ("alias", "value"),
    [("n_predict", 0), ("repeat_penalty", "x"), ("json_schema", 5), ("sampling_seed", 0.5)],
)
def test_an_error_names_the_field_that_was_sent(alias: str, value: Any) -> None:
    with pytest.raises(JobFailed) as failure:
        chat(**{alias: value})
    assert failure.value.error.param == alias
    assert failure.value.error.message.startswith(alias)


def test_completions_take_a_response_format() -> None:
    schema = {"name": "s", "schema": {"type": "object"}}
    job = completion(response_format={"type": "json_schema", "json_schema": schema})
    assert job.sampling.json_schema == '{"type":"object"}'


def test_reasoning_can_stay_in_the_content() -> None:
    assert chat(separate_reasoning=False).reasoning is None
    assert replace(chat(separate_reasoning=True), id=chat().id) == chat()
