"""Each row of the conformance page, checked against the front end."""

from typing import Any, get_type_hints

import pytest
from openai.types import completion_create_params
from openai.types.chat import (
    ChatCompletionAssistantMessageParam,
    ChatCompletionToolMessageParam,
    ChatCompletionUserMessageParam,
)
from openai.types.chat import (
    completion_create_params as chat_create_params,
)

from api.requests import unsupported_fields
from api.requests.ignored_fields import warning
from api.requests.translate import (
    Admission,
    chat_job,
    completion_job,
    parse_chat,
    parse_completion,
)
from ops.generate.conformance import (
    CHAT,
    CHAT_EXTENSIONS,
    COMPLETIONS,
    EXTENSIONS,
    MESSAGES,
    PAGE,
    TOOLS,
    USER,
    Outcome,
    Row,
    page,
)
from shared.errors import ErrorCode, JobFailed
from shared.protocol.ids import AdapterVersion, ApiId, JobId
from shared.protocol.tools import ToolForm

ADMISSION = Admission(
    id=JobId("a"),
    tenant="default",
    version=AdapterVersion("m@1"),
    fingerprint="fp_1",
    max_model_len=1000,
    reply_to=ApiId("api"),
    created_s=5,
    deadline_ms=1000,
    random_seed=1,
    tool_form=ToolForm.HERMES,
)


ALL_CHAT = CHAT + EXTENSIONS + CHAT_EXTENSIONS


def chat(fields: dict[str, Any]) -> tuple[object, ...]:
    """Return a request's job, the fields that don't change the job, and its warning."""
    request = parse_chat({"model": "m", "messages": [USER], **fields})
    return chat_job(request, ADMISSION), request.stream, request.background, warning(request)


def completion(fields: dict[str, Any]) -> tuple[object, ...]:
    request = parse_completion({"model": "m", "prompt": "hi", **fields})
    job = completion_job(request, ADMISSION)
    return job, request.stream, request.background, warning(request)


def nested(field: str, value: Any) -> dict[str, Any]:
    """Return `{"a": {"b": value}}` for `a.b` and a value."""
    name, _, rest = field.partition(".")
    return {name: nested(rest, value) if rest else value}


def assert_outcome(
    send: Any, row: Row, fields: dict[str, Any], more: dict[str, Any], param: str
) -> None:
    if row.outcome is Outcome.REFUSED:
        with pytest.raises(JobFailed) as refused:
            send({**more, **fields})
        error = refused.value.error
        assert (error.param or "").startswith(param)
        assert error.code in (ErrorCode.UNSUPPORTED_PARAMETER, ErrorCode.INVALID_VALUE)
        return
    *plain, no_warning = send(more)
    *used, named = send({**more, **fields})
    assert no_warning is None
    if row.outcome is Outcome.WORKS:
        assert named is None
        assert used != plain
    else:
        assert named == f"not used: {param}"


def ids(rows: tuple[Row, ...]) -> list[str]:
    return [row.name for row in rows]


@pytest.mark.parametrize("row", ALL_CHAT, ids=ids(ALL_CHAT))
def test_a_field_of_a_chat(row: Row) -> None:
    assert_outcome(chat, row, nested(row.name, row.value), row.more, row.name)


@pytest.mark.parametrize("row", COMPLETIONS + EXTENSIONS, ids=ids(COMPLETIONS + EXTENSIONS))
def test_a_field_of_a_completion(row: Row) -> None:
    assert_outcome(completion, row, nested(row.name, row.value), row.more, row.name)


@pytest.mark.parametrize("row", MESSAGES, ids=ids(MESSAGES))
def test_a_field_of_a_message(row: Row) -> None:
    param = f"messages[0].{row.name.partition(':')[0]}"
    assert_outcome(chat, row, {"messages": [row.value]}, {}, param)


@pytest.mark.parametrize("row", TOOLS, ids=ids(TOOLS))
def test_a_field_of_a_tool(row: Row) -> None:
    param = f"tools[0].{row.name.partition(':')[0]}"
    assert_outcome(chat, row, {"tools": row.value}, {}, param)


def test_every_field_of_openais_clients_is_listed() -> None:
    for params, rows in ((chat_create_params, CHAT), (completion_create_params, COMPLETIONS)):
        sent = get_type_hints(params.CompletionCreateParamsNonStreaming)
        assert set(sent) == {row.name.partition(".")[0] for row in rows}
    listed = {row.name.partition(":")[0] for row in MESSAGES}
    for message in (
        ChatCompletionAssistantMessageParam,
        ChatCompletionToolMessageParam,
        ChatCompletionUserMessageParam,
    ):
        assert set(get_type_hints(message)) <= listed


def test_the_page_lists_every_unsupported_field() -> None:
    text = page()
    for name in {*unsupported_fields.CHAT, *unsupported_fields.COMPLETIONS}:
        assert f"| `{name}` |" in text


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text() == page(), "run: python -m ops.generate.conformance"
