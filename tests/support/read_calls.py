"""Reads the tool calls in an answer that arrives in pieces."""

from api.render.tool_parser import CallArguments, CallStart, Text, ToolCallParser
from shared.protocol.tools import ToolUse

Calls = list[tuple[str, str]]
"""Tool names and arguments."""


def read_calls(
    use: ToolUse, *chunks: str, emits_early: bool = False, is_cut: bool = False
) -> tuple[str, Calls]:
    """Return the text and the calls. With `is_cut`, a limit of tokens has ended the answer."""
    parser = ToolCallParser(use, emits_early=emits_early)
    text, calls = "", Calls()
    pieces = [piece for chunk in chunks for piece in parser.feed(chunk)]
    for piece in pieces + parser.close(is_cut=is_cut):
        match piece:
            case Text():
                assert piece.text
                text += piece.text
            case CallStart():
                assert piece.index == len(calls)
                calls.append((piece.name, ""))
            case CallArguments():
                assert piece.index == len(calls) - 1
                calls[-1] = (calls[-1][0], calls[-1][1] + piece.text)
    return text, calls
