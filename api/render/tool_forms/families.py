"""How each family of models writes tool calls. Pure."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from api.render.tool_forms.body import Types
from api.render.tool_forms.json_body import BareObject, NamedObject
from api.render.tool_forms.pattern import NAME, SPACE, WORD, Ahead, Maybe, Pattern
from api.render.tool_forms.python_body import PythonBody
from api.render.tool_forms.xml_body import GLM45, QWEN3_CODER, XmlBody
from shared.protocol.tools import (
    DEEPSEEK_CALL,
    DEEPSEEK_CLOSE,
    DEEPSEEK_END,
    DEEPSEEK_OPEN,
    DEEPSEEK_SEPARATOR,
    GRANITE_OPEN,
    HERMES_CLOSE,
    HERMES_OPEN,
    LLAMA3_SEPARATOR,
    MISTRAL_ARGS,
    MISTRAL_ID,
    MISTRAL_OPEN,
    ToolForm,
)

_OBJECT = Ahead("{")
_BARE: Pattern = (SPACE, _OBJECT)
_qwen, _glm = partial(XmlBody, QWEN3_CODER), partial(XmlBody, GLM45)


CallBody = NamedObject | BareObject | PythonBody | XmlBody
"""Reads the arguments of one call from text that arrives in pieces."""


@dataclass(frozen=True, slots=True)
class CallSyntax:
    """Syntax of one way to write tool calls."""

    opens: Pattern
    """Text before the body of the first call."""
    body: Callable[[str, Types], CallBody]
    """Creates the reader of a call's body from the tool's name (empty if unknown) and `Types`."""
    closes: Pattern = ()
    """Text after the body of the last call, if the model writes it."""
    continues: Pattern | None = None
    """Text between the bodies of two calls; None if `opens` starts each call."""


@dataclass(frozen=True, slots=True)
class FormSyntax:
    """All ways to write tool calls in one form."""

    calls: tuple[CallSyntax, ...]
    is_anywhere: bool = True
    """Whether calls may occur anywhere in the text. Otherwise the text starts with them."""


def _json_list(*opens: str, after: Pattern = ()) -> CallSyntax:
    """Return the syntax of a JSON list of calls after the markers `opens`."""
    return CallSyntax(
        (*opens, SPACE, "[", SPACE, _OBJECT),
        NamedObject,
        closes=(SPACE, "]", *after),
        continues=(SPACE, ",", SPACE, _OBJECT),
    )


_HERMES = FormSyntax(
    (CallSyntax((HERMES_OPEN, SPACE, _OBJECT), NamedObject, closes=(SPACE, HERMES_CLOSE)),)
)
_LLAMA3 = FormSyntax(
    (CallSyntax(_BARE, NamedObject, continues=(SPACE, LLAMA3_SEPARATOR, *_BARE)),),
    is_anywhere=False,
)
_MISTRAL = FormSyntax(
    (
        _json_list(MISTRAL_OPEN),
        CallSyntax(
            (
                *(MISTRAL_OPEN, SPACE, NAME, Maybe((MISTRAL_ID, WORD))),
                *(Maybe((MISTRAL_ARGS,)), SPACE, _OBJECT),
            ),
            BareObject,
        ),
    )
)
_PYTHONIC = FormSyntax(
    (
        CallSyntax(
            (SPACE, Maybe(("<|python_start|>",)), SPACE, "[", SPACE, NAME, Ahead("(")),
            PythonBody,
            closes=(SPACE, Maybe((",", SPACE)), "]", Maybe((SPACE, "<|python_end|>"))),
            continues=(SPACE, ",", SPACE, NAME, Ahead("(")),
        ),
    ),
    is_anywhere=False,
)
_QWEN3_CODER = FormSyntax(
    (
        CallSyntax(
            (HERMES_OPEN, SPACE, "<function=", NAME, ">"), _qwen, closes=(SPACE, HERMES_CLOSE)
        ),
        # The model often leaves the outer tag out.
        CallSyntax(("<function=", NAME, ">"), _qwen, closes=(SPACE, HERMES_CLOSE)),
    )
)
_GLM45 = FormSyntax((CallSyntax((HERMES_OPEN, SPACE, NAME, SPACE, Ahead("<")), _glm),))
_GRANITE = FormSyntax(
    (
        _json_list(GRANITE_OPEN),
        _json_list(HERMES_OPEN, after=(Maybe((SPACE, HERMES_CLOSE)),)),
    )
)


def _deepseek() -> FormSyntax:
    ends: Pattern = (SPACE, DEEPSEEK_END, Maybe((SPACE, DEEPSEEK_CLOSE)))
    block: Pattern = ("function", DEEPSEEK_SEPARATOR, NAME, SPACE, "```json", SPACE, _OBJECT)
    bare: Pattern = (NAME, DEEPSEEK_SEPARATOR, SPACE, _OBJECT)
    starts: tuple[Pattern, ...] = ((DEEPSEEK_OPEN, SPACE, DEEPSEEK_CALL), (DEEPSEEK_CALL,))
    return FormSyntax(
        tuple(
            syntax
            for start in starts
            for syntax in (
                CallSyntax((*start, *bare), BareObject, closes=ends),
                CallSyntax((*start, *block), BareObject, closes=(SPACE, "```", Maybe(ends))),
            )
        )
    )


_DEEPSEEK = _deepseek()

SYNTAX = {
    ToolForm.HERMES: _HERMES,
    ToolForm.GENERIC: _HERMES,
    ToolForm.LLAMA3_JSON: _LLAMA3,
    ToolForm.MISTRAL: _MISTRAL,
    ToolForm.MISTRAL_ARGS: _MISTRAL,
    ToolForm.PYTHONIC: _PYTHONIC,
    ToolForm.QWEN3_CODER: _QWEN3_CODER,
    ToolForm.DEEPSEEK_V3: _DEEPSEEK,
    ToolForm.DEEPSEEK_V31: _DEEPSEEK,
    ToolForm.GLM45: _GLM45,
    ToolForm.GRANITE: _GRANITE,
}
"""Syntax of each form. The two forms of Mistral are read alike, and so are the two forms of
DeepSeek."""
