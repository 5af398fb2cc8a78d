"""Matches regular expressions in a child process: `python -m worker.lora.patterns.child_process`.

Python's `re` can take exponential time, and no thread can interrupt it.
"""

import json
import re
from collections.abc import Sequence

from shared.sandbox import START_CPU_S, answer_once, ask_sandbox
from worker.lora.patterns.pattern_form import Match

MAX_CPU_S = 2
"""Limit of the process's CPU time in seconds, including its start."""


def match_in_child(
    regexes: Sequence[str], names: Sequence[str], *, is_full: bool
) -> dict[str, Match] | None:
    """Find the first regex that matches each name, and the text of its group `idx`, if any.

    With `is_full`, regexes match whole names. Otherwise they match the start of a name. Names that
    no regex matches are left out. Return None if matching exceeds the limits.
    """
    asked = json.dumps([regexes, names, is_full]).encode()
    answer = ask_sandbox("worker.lora.patterns.child_process", asked)
    if not answer.text:
        return None
    return {name: Match(index, layer) for name, index, layer in json.loads(answer.text)}


def _first_matches(question: bytes) -> str:
    """Return a JSON list of (name, index of the first matching regex, group `idx` or null).

    `question` is a JSON list: the regexes, the names, and whether regexes match whole names.
    """
    regexes, names, is_full = json.loads(question)
    compiled = [re.compile(regex) for regex in regexes]
    found = []
    for name in names:
        for index, regex in enumerate(compiled):
            if match := regex.fullmatch(name) if is_full else regex.match(name):
                found.append((name, index, match.groupdict().get("idx")))
                break
    return json.dumps(found)


if __name__ == "__main__":
    # Whatever goes wrong, the patterns can't be matched.
    answer_once(_first_matches, (Exception,), MAX_CPU_S - START_CPU_S)
