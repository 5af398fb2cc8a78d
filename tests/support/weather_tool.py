"""A chat with one tool, `weather`, and an answer that calls it twice in Hermes form."""

from typing import Any

from openai.types.chat import ChatCompletionToolParam
from translated_jobs import HI

FUNCTION: Any = {"name": "weather", "parameters": {"type": "object", "properties": {}}}
TOOLS: list[ChatCompletionToolParam] = [{"type": "function", "function": FUNCTION}]
BODY = {"model": "extract", "messages": [HI], "tools": TOOLS}
URL = "/v1/chat/completions"
OSAKA, OSLO = '{"city": "Osaka"}', '{"city": "Oslo"}'


def call(arguments: str) -> str:
    """Return the text with which a model calls the tool."""
    return f'<tool_call>\n{{"name": "weather", "arguments": {arguments}}}\n</tool_call>'


ANSWER = f"Let me see.\n{call(OSAKA)}\n{call(OSLO)}"
