"""Chat templates with tools, in the formats of several model families."""

HERMES = (
    "{% if tools %}<|system|>"
    "Functions: <tools>{% for tool in tools %}\n{{ tool | tojson }}{% endfor %}\n</tools>\n"
    "To call one, write:\n<tool_call>\n"
    '{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call><|end|>'
    "{% endif %}"
    "{% for m in messages %}<|{{ m.role }}|>"
    "{% if m.role == 'tool' %}<tool_response>{{ m.name }}: {{ m.content }}</tool_response>"
    "{% else %}{{ m.content }}{% endif %}"
    "{% for call in m.tool_calls or [] %}<tool_call>\n"
    '{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}'
    "\n</tool_call>{% endfor %}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)

LLAMA3 = (
    "{% if custom_tools is defined %}{% set tools = custom_tools %}{% endif %}"
    "{% if not tools is defined %}{% set tools = none %}{% endif %}"
    "{% if tools is not none %}<|system|>"
    'Respond in the format {"name": function name, "parameters": dictionary of argument names}.'
    "{% for t in tools %}\n{{ t | tojson(indent=4) }}{% endfor %}<|end|>{% endif %}"
    "{% for m in messages %}<|{{ m.role }}|>{% if 'tool_calls' in m %}"
    "{% if m.tool_calls | length != 1 %}{{ raise_exception('only single tool-calls') }}{% endif %}"
    "{% set call = m.tool_calls[0].function %}"
    '{"name": "{{ call.name }}", "parameters": {{ call.arguments | tojson }}}'
    "{% else %}{{ m.content }}{% endif %}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)

_OFFER = "{% if tools %}<|system|>Tools: {{ tools | tojson }}<|end|>{% endif %}"
_END = "<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"


def _template(call: str, offer: str = _OFFER, *, before: str = "", after: str = "") -> str:
    """Return a template that offers tools with `offer` and shows each earlier call as `call`."""
    return (
        f"{offer}{{% for m in messages %}}<|{{{{ m.role }}}}|>{{{{ m.content }}}}"
        f"{{% if m.tool_calls %}}{before}{{% for c in m.tool_calls %}}{{% set f = c.function %}}"
        f"{call}{{% endfor %}}{after}{{% endif %}}{_END}"
    )


MISTRAL = _template(
    "{% if c.id | length != 9 %}{{ raise_exception('Tool call IDs have 9 characters') }}{% endif %}"
    '{{ {"name": f.name, "arguments": f.arguments, "id": c.id} | tojson }}'
    "{% if not loop.last %}, {% endif %}",
    "{% if tools %}[AVAILABLE_TOOLS] {{ tools | tojson }}[/AVAILABLE_TOOLS]{% endif %}",
    before="[TOOL_CALLS] [",
    after="]",
)
MISTRAL_ARGS = _template("[TOOL_CALLS]{{ f.name }}[ARGS]{{ f.arguments | tojson }}")
PYTHONIC = _template(
    '{"name": "{{ f.name }}", "parameters": {{ f.arguments | tojson }}}',
    _OFFER + "{% if tools %}Write [func_name1(params_name1=params_value1, params_name2="
    "params_value2...), func_name2(params)]{% endif %}",
)
QWEN3_CODER = _template(
    "<tool_call>\n<function={{ f.name }}>\n{% for k, v in f.arguments.items() %}"
    "<parameter={{ k }}>\n{{ v if v is string else v | tojson }}\n</parameter>\n{% endfor %}"
    "</function>\n</tool_call>",
)
DEEPSEEK_V3 = _template(
    "{{ '<｜tool▁call▁begin｜>' + c.type + '<｜tool▁sep｜>' + f.name + '\\n```json\\n'"  # noqa: RUF001
    " + f.arguments + '\\n```' + '<｜tool▁call▁end｜>' }}",  # noqa: RUF001
    before="<｜tool▁calls▁begin｜>",  # noqa: RUF001
    after="<｜tool▁calls▁end｜>",  # noqa: RUF001
)
DEEPSEEK_V31 = _template(
    "<｜tool▁call▁begin｜>{{ f.name }}<｜tool▁sep｜>{{ f.arguments | tojson }}"  # noqa: RUF001
    "<｜tool▁call▁end｜>",  # noqa: RUF001
    before="<｜tool▁calls▁begin｜>",  # noqa: RUF001
    after="<｜tool▁calls▁end｜>",  # noqa: RUF001
)
GLM45 = _template(
    "<tool_call>{{ f.name }}\n{% for k, v in f.arguments.items() %}<arg_key>{{ k }}</arg_key>\n"
    "<arg_value>{{ v if v is string else v | tojson }}</arg_value>\n{% endfor %}</tool_call>",
)
GRANITE = _template(
    '{{ {"name": f.name, "arguments": f.arguments} | tojson }}', before="<|tool_call|>[", after="]"
)

UNKNOWN_FORM = (
    "{% if tools %}[AVAILABLE_TOOLS]{{ tools | tojson }}[/AVAILABLE_TOOLS]{% endif %}"
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
)
