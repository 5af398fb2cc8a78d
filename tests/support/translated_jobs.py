"""Jobs that the front end makes of requests to one model."""

from typing import Any

from openai.types.chat import ChatCompletionMessageParam

from api.requests.translate import Admission, chat_job, completion_job, parse_chat, parse_completion
from shared.protocol.ids import AdapterVersion, ApiId, JobId
from shared.protocol.jobs import Job
from shared.protocol.tools import ToolForm

HI: ChatCompletionMessageParam = {"role": "user", "content": "hi"}
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
    tool_form=ToolForm.HERMES,
)


def chat(**fields: Any) -> Job:
    return chat_job(parse_chat({"model": "m", "messages": [HI], **fields}), ADMISSION)


def completion(**fields: Any) -> Job:
    return completion_job(parse_completion({"model": "m", "prompt": "hi", **fields}), ADMISSION)
