"""Tools with a chat template that doesn't show them."""

from dataclasses import replace

import pytest
from translated_jobs import ADMISSION, HI
from weather_tool import TOOLS

from api.requests.translate import chat_job, parse_chat
from shared.errors import ErrorCode, JobFailed

WITHOUT_TOOLS = replace(ADMISSION, tool_form=None)
BODY = {"model": "m", "messages": [HI], "tools": TOOLS}


def test_tools_are_refused_unless_the_model_may_not_call_them() -> None:
    with pytest.raises(JobFailed, match='leave them out, or send tool_choice "none"') as refused:
        chat_job(parse_chat(BODY), WITHOUT_TOOLS)
    error = refused.value.error
    assert (error.code, error.param) == (ErrorCode.UNSUPPORTED_PARAMETER, "tools")
    assert chat_job(parse_chat({**BODY, "tool_choice": "none"}), WITHOUT_TOOLS).tools is None
