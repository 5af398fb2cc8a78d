"""States why llguidance refuses a grammar, in words for the author of a schema. Pure."""

import json
import re

_PLACE = re.compile(r"at \d+\(\d+\): (?:failed to compile JSON schema: )?")
_LINES = re.compile(r"\n +\d+ \| .*", re.DOTALL)
"""Matches the lines of the grammar that llguidance shows around an error."""
_REGEX = re.compile(r"regex parse error:\n +(.*?)\n[ ^]*\nerror: (.*)", re.DOTALL)
_KEYWORDS = re.compile(r"Unimplemented keys: (\[.*\])", re.DOTALL)


def plain_reason(error: str) -> str:
    """Return llguidance's error message without lines of the grammar, which clients never see."""
    text = _LINES.sub("", _PLACE.sub("", error, count=1)).strip()
    if found := _REGEX.fullmatch(text):
        return f"the regular expression {found[1]} isn't supported: {found[2]}"
    if found := _KEYWORDS.fullmatch(text):
        return f"keywords that aren't supported: {', '.join(json.loads(found[1]))}"
    return text
