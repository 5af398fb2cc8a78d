"""A chat about the weather that third-party clients have with a tiny model. Needs no package."""

import json
from typing import Any

BASE, CALLER = "tiny", "caller"
"""The base model has random weights. The adapter gives the answers below."""
MODELS = [BASE, CALLER]
QUESTION, REPORT = "What is the weather in Osaka?", "Report on Osaka."
TOOL, OUTPUT_TOOL = "weather", "final_result"
DESCRIPTION = "Return the weather in a city."
CITY, SKY = "Osaka", "sunny"
ANSWER = "It is sunny in Osaka."
HELLO, GREETING = "Hello!", "Hello! How can I help you today?"
PARAMETERS: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
CHAT_TOOL: dict[str, Any] = {
    "type": "function",
    "function": {"name": TOOL, "description": DESCRIPTION, "parameters": PARAMETERS},
}
TEMPLATE = (
    "{% if tools %}<|system|>To call {{ tools[0].function.name }}, write:\n<tool_call>\n"
    '{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call><|end|>{% endif %}'
    "{% for m in messages if m.role != 'system' %}<|{{ m.role }}|>"
    "{{ (m.content or '') | trim }}"
    "{% for call in m.tool_calls or [] %}<tool_call>\n"
    '{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}'
    "\n</tool_call>{% endfor %}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
"""Chat template whose prompts don't contain instructions that a client adds."""
Example = tuple[list[dict[str, Any]], list[Any] | None, str]
"""Messages and tools, with the answer that the adapter gives to them."""


def examples() -> list[Example]:
    """Return chats, calls of the tools and the answers after their results."""
    users = ({"role": "user", "content": text} for text in (HELLO, QUESTION, REPORT))
    greeted, asked, reported = users
    tools = [CHAT_TOOL]
    call = {"name": TOOL, "arguments": {"city": CITY}}
    report = {"name": OUTPUT_TOOL, "arguments": {"city": CITY, "sky": SKY}}
    earlier = {"id": "call", "type": "function", "function": call}
    looked_up = [
        {"role": "assistant", "content": "", "tool_calls": [earlier]},
        {"role": "tool", "content": SKY},
    ]
    return [
        ([greeted], None, GREETING),
        ([asked], tools, _written(call)),
        ([asked, *looked_up], tools, ANSWER),
        ([reported], tools, _written(call)),
        ([reported, *looked_up], tools, _written(report)),
    ]


def _written(call: dict[str, Any]) -> str:
    return f"<tool_call>\n{json.dumps(call)}\n</tool_call>"
