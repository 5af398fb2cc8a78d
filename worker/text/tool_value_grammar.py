"""Builds the grammar of tool arguments that aren't written as one JSON object.

Parameters come in the order of the schema. Required parameters are always written. A value that can
only be a string is free text or one of the values of its `enum`. All other values are JSON that
is valid under the parameter's schema. Keywords for strings other than `enum`, and keywords that
relate several parameters, aren't enforced.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from shared.errors import GrammarRejected
from shared.protocol.parameter_types import parameter_types
from shared.protocol.tools import ToolForm
from worker.engine.grammar import JSON_OPTIONS

_TEXT = "/(?s:.*)/"


@dataclass(frozen=True, slots=True)
class ValueForm:
    """Syntax of a parameter and its value in one form of calls.

    KEY stands for the parameter's name.
    """

    key: re.Pattern[str]
    """Pattern of the parameter names that this form can write."""
    head: str
    close: str
    """Text that ends the value."""
    tail: str = ""
    """Text after `close` that ends the parameter."""
    margin: str = ""
    """Text between the value and `close`. It isn't part of the value."""
    separator: str = ""
    """Text between parameters."""
    is_literal: bool = False
    """Whether values are literals: strings are quoted, and truth values are True and False."""

    @property
    def shared_rules(self) -> list[str]:
        """Grammar rules that the rules of all tools refer to."""
        close = json.dumps(self.close)
        return [] if self.is_literal else [f"text[suffix={close}]: {_TEXT}"]


_KEY = re.compile(r"[^<>\n]{1,256}")
VALUE_FORMS = {
    ToolForm.PYTHONIC: ValueForm(
        re.compile(r"[A-Za-z_][A-Za-z0-9_]*"), "KEY=", "", separator=", ", is_literal=True
    ),
    ToolForm.QWEN3_CODER: ValueForm(
        _KEY, "<parameter=KEY>\n", "</parameter>", tail="\n", margin="\n"
    ),
    ToolForm.GLM45: ValueForm(
        _KEY, "<arg_key>KEY</arg_key>\n<arg_value>", "</arg_value>", tail="\n"
    ),
}
"""Syntax of parameters in each form of calls that doesn't write arguments as one JSON object."""


def value_rules(form: ToolForm, tool: dict[str, Any], number: int) -> Iterator[str]:
    """Yield the grammar rules of one tool's arguments. `number` distinguishes tools in rule names.

    Raises:
        GrammarRejected: the schema is malformed, or the form can't write a parameter's name.
    """
    writer, schema = VALUE_FORMS[form], tool.get("parameters") or {}
    types, required = parameter_types(tool), schema.get("required") or []
    if not isinstance(schema.get("properties") or {}, dict):
        raise GrammarRejected("properties must be an object")
    if not isinstance(required, list) or not all(isinstance(key, str) for key in required):
        raise GrammarRejected("required must be a list of names")
    known = {key: s for key, s in (schema.get("properties") or {}).items() if s is not False}
    known |= {key: {} for key in required if key not in known}
    yield from _sequence(number, [key in required for key in known], writer.separator)
    for i, (key, wanted) in enumerate(known.items()):
        if not writer.key.fullmatch(key):
            raise GrammarRejected(f"a parameter can't have the name {key[:100]!r} in {form} calls")
        name, head = f"{number}_{i}", literal(writer.head.replace("KEY", key))
        wanted = wanted if isinstance(wanted, dict) else {}
        yield from _value(writer, name, wanted, types.get(key, frozenset(("string",))), schema)
        yield f"parameter_{name}: {head} value_{name} {literal(writer.tail)}"


def _sequence(number: int, is_required: list[bool], separator: str) -> Iterator[str]:
    """Yield the rules for tool `number`'s parameters in order. Optional ones may be left out.

    The rules `none_N_I` and `some_N_I` match the parameters from number I on. `none_N_I` is for a
    call without an earlier parameter, and `some_N_I` is for a call that has one.
    """
    yield f"arguments_{number}: none_{number}_0"
    for i, must in enumerate(is_required):
        parameter, rest = f"parameter_{number}_{i}", f"some_{number}_{i + 1}"
        first = f"{parameter} {rest}"
        later = f"{literal(separator)} {parameter} {rest}"
        yield f"none_{number}_{i}: {first}" + ("" if must else f" | none_{number}_{i + 1}")
        yield f"some_{number}_{i}: {later}" + ("" if must else f" | {rest}")
    end = len(is_required)
    yield f'none_{number}_{end}: ""'
    yield f'some_{number}_{end}: ""'


def _value(
    writer: ValueForm, name: str, schema: dict[str, Any], types: frozenset[str], root: Any
) -> Iterator[str]:
    """Yield the rule `value_<name>`, and rules that it refers to.

    The rule matches a value of the parameter and the text that ends the value.
    """
    close = literal(writer.margin + writer.close)
    if writer.is_literal and types == {"boolean"}:
        yield f'value_{name}: "True" | "False"'
    elif writer.is_literal or "string" not in types:
        yield f"value_{name}: json_{name} {close}"
        shared = {key: root[key] for key in ("$defs", "definitions") if key in root}
        yield f"json_{name}: %json {json.dumps({**shared, **schema, 'x-guidance': JSON_OPTIONS})}"
    elif choices := _choices(schema):
        options = " | ".join(f"{literal(choice)} {close}" for choice in choices)
        yield f"value_{name}: {options}"
    else:
        yield f"value_{name}: text"


def _choices(schema: dict[str, Any]) -> list[str]:
    """Return the strings to which a schema limits a value; an empty list if it sets no limit."""
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        return []
    return values


def literal(text: str) -> str:
    """Return a text as a string literal of llguidance's grammars. An empty text stays empty."""
    return json.dumps(text, ensure_ascii=False) if text else ""
