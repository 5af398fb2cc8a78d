"""A chat about the weather that third-party clients have with a tiny model. Needs no package."""

import json
from typing import Any

BASE, CALLER, PROGRAM, AGENT = "tiny", "caller", "program", "agent"
"""The base model has random weights. The adapters are trained to give the answers below."""
MODELS = [BASE, CALLER, PROGRAM, AGENT]
QUESTION, REPORT = "What is the weather in Osaka?", "Report on Osaka."
TOOL, OUTPUT_TOOL = "weather", "final_result"
DESCRIPTION = "Return the weather in a city."
CITY, SKY = "Osaka", "sunny"
ANSWER, REASONING = "It is sunny in Osaka.", "The sky is clear."
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
    "{{ (m.content or '').split(\"'id'\")[0] | trim }}"
    "{% for call in m.tool_calls or [] %}<tool_call>\n"
    '{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}'
    "\n</tool_call>{% endfor %}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
"""Chat template whose prompts don't contain instructions that a client adds, or ids of calls."""
Example = tuple[list[dict[str, Any]], list[Any] | None, str]
"""Messages and tools, with the answer that an adapter is trained to give to them."""


def examples() -> dict[str, list[Example]]:
    """Return the examples of each adapter."""
    return {CALLER: _calls(), PROGRAM: _dspy_programs(), AGENT: _smolagents_runs()}


def _calls() -> list[Example]:
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


def _dspy_programs() -> list[Example]:
    """Return the prompts of `dspy.Predict` and `dspy.ChainOfThought`."""
    asked = f"[[ ## question ## ]]\n{QUESTION}\n\nRespond with the corresponding output fields, "
    start, last = "starting with the field ", "and then ending with the marker for "
    reasoning, answer, completed = (
        f"[[ ## {name} ## ]]" for name in ("reasoning", "answer", "completed")
    )
    answered = f"{answer}\n{ANSWER}\n\n{completed}"
    prompts = [
        (f"{asked}{start}`{answer}`, {last}`{completed}`.", answered),
        (
            f"{asked}{start}`{reasoning}`, then `{answer}`, {last}`{completed}`.",
            f"{reasoning}\n{REASONING}\n\n{answered}",
        ),
    ]
    return [([{"role": "user", "content": prompt}], None, text) for prompt, text in prompts]


def _smolagents_runs() -> list[Example]:
    """Return the two steps of a run of `smolagents.ToolCallingAgent`."""
    asked = {"role": "user", "content": f"New task:\n{QUESTION}"}
    call = {"name": TOOL, "arguments": {"city": CITY}}
    final = {"name": "final_answer", "arguments": {"answer": ANSWER}}
    called = [{"id": "call", "type": "function", "function": call}]
    looked_up = [
        {"role": "assistant", "content": f"Calling tools:\n{called}"},
        {"role": "user", "content": f"Observation:\n{SKY}"},
    ]
    return [
        ([asked], [CHAT_TOOL], _written(call)),
        ([asked, *looked_up], [CHAT_TOOL], _written(final)),
    ]


def _written(call: dict[str, Any]) -> str:
    return f"<tool_call>\n{json.dumps(call)}\n</tool_call>"
