"""Families of models that think and call tools: their chat templates, and how they write answers.

Each template has the parts of the family's real one that matter for answers: the instructions for
calls, earlier calls and their results, earlier reasoning, and the end of the prompt. Texts are
shortened, because each byte of a prompt is one token of the tiny model.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from written_calls import BEGIN, CALL, CALL_END, END, SEP, Call, written

from shared.protocol.tools import ToolForm
from shared.reasoning_form import ReasoningForm

_QWEN3 = """
{%- if tools %}<|im_start|>system
# Tools
<tools>{% for tool in tools %}{{ '\\n' }}{{ tool | tojson }}{% endfor %}{{ '\\n' }}</tools>
<tool_call>
{"name": <function-name>, "arguments": <args-json-object>}
</tool_call><|im_end|>
{% endif %}
{%- for m in messages %}
{%- if m.role == 'assistant' %}{% set content = m.content or '' %}<|im_start|>assistant
{% if loop.last or m.tool_calls %}<think>
{{ m.reasoning_content or '' }}
</think>

{% endif %}{{ content }}
{%- for call in m.tool_calls or [] %}
{%- if content or not loop.first %}{{ '\\n' }}{% endif %}<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>
{%- endfor %}<|im_end|>
{% elif m.role == 'tool' %}<|im_start|>user
<tool_response>
{{ m.content }}
</tool_response><|im_end|>
{% else %}<|im_start|>{{ m.role }}
{{ m.content }}<|im_end|>
{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% if enable_thinking is defined and enable_thinking is false %}<think>

</think>

{% endif %}{% endif %}"""

_DEEPSEEK = f"""
{{{{- bos_token }}}}
{{%- if tools %}}## Tools
{{% for tool in tools %}}{{{{ tool | tojson }}}}
{{% endfor %}}Format:
{BEGIN}{CALL}tool_call_name{SEP}tool_call_arguments{CALL_END}{END}
{{% endif %}}
{{%- set ns = namespace(is_tool=false) %}}
{{%- for m in messages %}}{{% set ns.is_tool = m.role == 'tool' %}}
{{%- if m.role == 'assistant' %}}<｜Assistant｜></think>{{{{ m.content or '' }}}}
{{%- for call in m.tool_calls or [] %}}{{% if loop.first %}}{BEGIN}{{% endif %}}
{{{{- '{CALL}' + call.function.name + '{SEP}' + call.function.arguments + '{CALL_END}' }}}}
{{%- if loop.last %}}{END}{{% endif %}}{{% endfor %}}<｜end▁of▁sentence｜>
{{%- elif m.role == 'tool' %}}<｜tool▁output▁begin｜>{{{{ m.content }}}}<｜tool▁output▁end｜>
{{%- else %}}<｜User｜>{{{{ m.content }}}}{{% endif %}}
{{%- endfor %}}
{{%- if add_generation_prompt and not ns.is_tool %}}<｜Assistant｜>
{{{{- '</think>' if thinking is defined and not thinking else '<think>' }}}}{{% endif %}}"""  # noqa: RUF001

_MISTRAL = """
{{- bos_token }}[SYSTEM_PROMPT][THINK]Your thoughts.[/THINK]Your answer.[/SYSTEM_PROMPT]
{%- if tools %}[AVAILABLE_TOOLS]{{ tools | tojson }}[/AVAILABLE_TOOLS]{% endif %}
{%- for m in messages %}
{%- if m.role == 'user' %}[INST]{{ m.content }}[/INST]
{%- elif m.role == 'tool' %}[TOOL_RESULTS]{{ m.content }}[/TOOL_RESULTS]
{%- else %}
{%- if m.reasoning_content %}[THINK]{{ m.reasoning_content }}[/THINK]{% endif %}
{{- m.content or '' }}
{%- for call in m.tool_calls or [] %}
{%- if call.id | length != 9 %}{{ raise_exception('Ids have 9 characters') }}{% endif %}
{{- '[TOOL_CALLS]' + call.function.name + '[ARGS]' }}{{ call.function.arguments | tojson }}
{%- endfor %}{{ eos_token }}
{%- endif %}{% endfor %}"""

_GLM = """[gMASK]<sop>
{%- if tools %}<|system|>
# Tools
<tools>
{% for tool in tools %}{{ tool | tojson }}
{% endfor %}</tools>
<tool_call>{function-name}
<arg_key>{arg-key-1}</arg_key>
<arg_value>{arg-value-1}</arg_value>
...
</tool_call>{% endif %}
{%- for m in messages %}
{%- if m.role == 'user' %}<|user|>
{{ m.content }}
{{- '/nothink' if enable_thinking is defined and not enable_thinking else '' }}
{%- elif m.role == 'assistant' %}<|assistant|>
<think>{{ (m.reasoning_content or '') | trim }}</think>
{%- if m.content %}{{ '\\n' + m.content | trim }}{% endif %}
{%- for call in m.tool_calls or [] %}{{ '\\n' }}<tool_call>{{ call.function.name }}
{% for key, value in call.function.arguments.items() %}<arg_key>{{ key }}</arg_key>
<arg_value>{{ value if value is string else value | tojson }}</arg_value>
{% endfor %}</tool_call>{% endfor %}
{%- elif m.role == 'tool' %}<|observation|>
<tool_response>
{{ m.content }}
</tool_response>
{%- else %}<|{{ m.role }}|>
{{ m.content }}{% endif %}{% endfor %}
{%- if add_generation_prompt %}<|assistant|>
{{- '\\n<think></think>' if enable_thinking is defined and not enable_thinking else '' }}
{%- endif %}"""

_LLAMA4 = """
{{- bos_token }}
{%- if tools %}<|header_start|>system<|header_end|>

Use exact format: [func_name1(param1=value1, param2=value2), func_name2(...)]
{{ tools | tojson }}<|eot|>{% endif %}
{%- for m in messages %}
{%- if m.role == 'tool' %}<|header_start|>ipython<|header_end|>

{{ m.content | tojson }}<|eot|>
{%- else %}<|header_start|>{{ m.role }}<|header_end|>

{{ m.content or '' }}
{%- if m.tool_calls %}[
{%- for call in m.tool_calls %}{{ call.function.name }}(
{%- for key, value in call.function.arguments.items() %}{{ key }}={{ value | tojson }}
{%- if not loop.last %}, {% endif %}{% endfor %})
{%- if not loop.last %}, {% endif %}{% endfor %}]{% endif %}<|eot|>
{%- endif %}{% endfor %}
{%- if add_generation_prompt %}<|header_start|>assistant<|header_end|>

{% endif %}"""


@dataclass(frozen=True)
class Family:
    name: str
    template: str
    form: ToolForm
    reasoning: ReasoningForm
    """Form of its reasoning, or for Llama 4, which doesn't think, of a model that was tuned to."""
    before_thought: str = ""
    """Text before the thought, after the opening marker."""
    after_thought: str = ""
    """Text after the thought, before the closing marker."""
    after_reasoning: str = ""
    """Text after the closing marker."""
    before_reasoning: str = ""
    """Text before the opening marker."""
    before_calls: str = ""
    """Text between the content and the first call."""
    thinks: bool = True
    """Whether the template has reasoning."""
    is_opened: bool = False
    """Whether prompts end with the opening marker, so that the model doesn't write it."""

    def answer(
        self, thought: str = "", content: str = "", calls: Sequence[Call] = (), *, raw: str = ""
    ) -> str:
        """Return the text of an answer with the opening marker, as workers publish it.

        `raw` is text after the content that takes the place of the calls.
        """
        written_calls = raw or (written(self.form, calls) if calls else "")
        between = self.before_calls if content and written_calls else ""
        return self._reasoned(thought) + content + between + written_calls

    def generated(self, answer: str) -> str:
        """Return the part of an answer that the model writes."""
        return answer.removeprefix(self.reasoning.opening) if self.is_opened else answer

    def _reasoned(self, thought: str) -> str:
        if not thought:
            return ""
        opening, closing = self.reasoning.markers
        return (
            f"{self.before_reasoning}{opening}{self.before_thought}{thought}"
            f"{self.after_thought}{closing}{self.after_reasoning}"
        )


_THINK = ReasoningForm.THINK
QWEN3 = Family(
    *("qwen3", _QWEN3, ToolForm.HERMES, _THINK),
    before_thought="\n",
    after_thought="\n",
    after_reasoning="\n\n",
    before_calls="\n",
)
DEEPSEEK = Family("deepseek", _DEEPSEEK, ToolForm.DEEPSEEK_V31, _THINK, is_opened=True)
MISTRAL = Family("mistral", _MISTRAL, ToolForm.MISTRAL_ARGS, ReasoningForm.MISTRAL)
GLM = Family(
    *("glm", _GLM, ToolForm.GLM45, _THINK),
    before_reasoning="\n",
    after_reasoning="\n",
    before_calls="\n",
)
LLAMA4 = Family("llama4", _LLAMA4, ToolForm.PYTHONIC, _THINK, thinks=False)
FAMILIES = (QWEN3, DEEPSEEK, MISTRAL, GLM, LLAMA4)
