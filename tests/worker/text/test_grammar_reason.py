"""A schema of a tool that can't be enforced is named by its path, with a reason in plain words."""

from typing import Any

import pytest
from scripted_engine import BASE
from worker_support import Client

from shared.errors import ErrorCode, GrammarRejected
from shared.protocol.jobs import Endpoint, SamplingParams
from shared.protocol.tools import ToolChoice, ToolForm, ToolUse
from worker.text.grammar_reason import plain_reason
from worker.text.grammar_sandbox import compiled_source, encode_constraint
from worker.text.grammar_source import Constraint

GOOD = {"type": "object", "properties": {"a": {"type": "string"}}}
JSON_FORMS = [ToolForm.HERMES, ToolForm.GENERIC, ToolForm.MISTRAL, ToolForm.DEEPSEEK_V31]
VALUE_FORMS = [ToolForm.QWEN3_CODER, ToolForm.GLM45, ToolForm.PYTHONIC]


def use_of(form: ToolForm, *schemas: Any, name: str | None = None) -> ToolUse:
    functions = [{"name": f"f{i}", "parameters": schema} for i, schema in enumerate(schemas)]
    tools = tuple({"type": "function", "function": function} for function in functions)
    return ToolUse(form=form, choice=ToolChoice.REQUIRED, tools=tools, name=name)


def with_property(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": {"a": schema}}


def reason_of(constraint: Constraint) -> str:
    with pytest.raises(GrammarRejected) as caught:
        compiled_source(encode_constraint(constraint))
    return str(caught.value)


@pytest.mark.parametrize("form", JSON_FORMS)
@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        (with_property({"type": "strin"}), "Invalid type: strin"),
        (with_property({"not": {}, "type": "string"}), "keywords that aren't supported: not"),
        (
            {"type": "object", "if": {}, "then": {}},
            "keywords that aren't supported: if, then",
        ),
        (with_property({"$ref": "#/$defs/no"}), "Pointer '/$defs/no' does not exist"),
        (
            with_property({"type": "string", "pattern": "(?=a)b"}),
            "the regular expression (?=a)b isn't supported: look-around, including look-ahead and "
            "look-behind, is not supported",
        ),
        ({"type": "object", "properties": [1]}, "properties must be an object"),
    ],
)
def test_the_tool_and_the_reason_are_named(
    form: ToolForm, schema: dict[str, Any], reason: str
) -> None:
    found = reason_of(Constraint(tools=use_of(form, GOOD, schema, GOOD)))
    assert found == f"tools[1].function.parameters: {reason}"


@pytest.mark.parametrize("form", VALUE_FORMS)
@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        (with_property({"type": ["integer", "strin"]}), "Invalid type: strin"),
        ({"type": "object", "properties": [1]}, "properties must be an object"),
        ({"type": "object", "required": 5}, "required must be a list of names"),
        ({"type": "object", "required": ["a", 5]}, "required must be a list of names"),
    ],
)
def test_forms_with_single_values_name_the_tool_as_well(
    form: ToolForm, schema: dict[str, Any], reason: str
) -> None:
    found = reason_of(Constraint(tools=use_of(form, GOOD, schema)))
    assert found == f"tools[1].function.parameters: {reason}"


def test_a_tool_that_may_not_be_called_is_not_to_blame() -> None:
    bad = with_property({"not": {}})
    use = use_of(ToolForm.HERMES, bad, bad, name="f1")
    assert reason_of(Constraint(tools=use)).startswith("tools[1].")


def test_an_answer_format_beside_good_tools_is_to_blame() -> None:
    use = use_of(ToolForm.HERMES, GOOD)
    found = reason_of(Constraint(tools=use, json_schema='{"not": {}}'))
    assert found == "keywords that aren't supported: not"


def test_a_text_in_which_calls_are_constrained_names_the_tool() -> None:
    use = use_of(ToolForm.GENERIC, with_property({"type": "strin"}))
    found = reason_of(Constraint(tools=use, is_text=True))
    assert found == "tools[0].function.parameters: Invalid type: strin"


def test_lines_of_a_clients_own_grammar_are_kept() -> None:
    found = reason_of(Constraint(grammar="start: missing\n"))
    assert "missing" in found
    assert "start: missing" in found


def test_other_errors_are_unchanged() -> None:
    assert plain_reason("no text matches it") == "no text matches it"


async def test_the_error_of_a_job_has_the_path_as_its_param(client: Client) -> None:
    use = use_of(ToolForm.HERMES, GOOD, with_property({"type": "strin"}))
    messages = ({"role": "user", "content": "x"},)
    async with client.worker():
        job = await client.send(
            endpoint=Endpoint.CHAT,
            prompts=(),
            messages=messages,
            tools=use,
            version=BASE.version,
            sampling=SamplingParams(seed=1),
        )
        end = await client.end_of(job, deadline_s=60)
    assert end.error is not None
    path = "tools[1].function.parameters"
    assert (end.error.code, end.error.param) == (ErrorCode.INVALID_VALUE, path)
    expected = f"{path}: the schema can't be enforced: Invalid type: strin"
    assert end.error.message == expected
