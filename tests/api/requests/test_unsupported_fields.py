"""Neutral values of unsupported fields."""

from typing import Any

from api.requests.translate import Admission, chat_job, completion_job, parse_chat, parse_completion
from shared.protocol.ids import AdapterVersion, ApiId, JobId
from shared.protocol.jobs import Job

HI = [{"role": "user", "content": "hi"}]
ADMISSION = Admission(
    id=JobId("a" * 32),
    tenant="t",
    version=AdapterVersion("m@1"),
    fingerprint="fp_1",
    max_model_len=1000,
    reply_to=ApiId("api"),
    created_s=5,
    deadline_ms=600_000,
    random_seed=77,
)


def chat(**fields: Any) -> Job:
    return chat_job(parse_chat({"model": "m", "messages": HI, **fields}), ADMISSION)


def completion(**fields: Any) -> Job:
    return completion_job(parse_completion({"model": "m", "prompt": "hi", **fields}), ADMISSION)


def test_unsupported_fields_are_accepted_with_neutral_values() -> None:
    neutral = {
        "tools": [],
        "tool_choice": "auto",
        "parallel_tool_calls": True,
        "functions": [],
        "function_call": "none",
        "response_format": {"type": "text"},
        "service_tier": "auto",
        "store": False,
        "metadata": None,
        "modalities": ["text"],
        "reasoning_effort": None,
        "user": "me",
    }
    assert chat(**neutral) == chat()
    assert completion(best_of=1, suffix=None) == completion()
