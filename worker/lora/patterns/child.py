"""Matches regular expressions in a child process: `python -m worker.lora.patterns.child`.

Python's `re` can take exponential time, and no thread can interrupt it. If the process exceeds a
limit of CPU time or memory, the kernel kills it.
"""

import json
import re
import resource
import subprocess
import sys
from collections.abc import Sequence

from worker.lora.patterns.pattern_form import Match

MAX_CPU_S = 2
"""Limit of the process's CPU time, in seconds."""
MAX_BYTES = 256 << 20
"""Limit of the process's address space in bytes, including the interpreter."""
TIMEOUT_S = 60.0
"""Time limit in seconds of wall-clock time, for a process that waits instead of computing."""


def match_in_child(
    regexes: Sequence[str], names: Sequence[str], *, is_full: bool
) -> dict[str, Match] | None:
    """Return the first matching regex of each name, and its group `idx` if it has one.

    With `is_full`, regexes match whole names. Otherwise they match the start of a name. Names that
    no regex matches are left out. Return None if the limits don't suffice.
    """
    command = [sys.executable, "-P", "-m", "worker.lora.patterns.child"]
    asked = json.dumps([regexes, names, is_full]).encode()
    try:
        done = subprocess.run(command, input=asked, capture_output=True, timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return None
    if done.returncode:
        return None
    return {name: Match(index, layer) for name, index, layer in json.loads(done.stdout)}


def main() -> None:
    """Read regexes and names from stdin, and write the first match of each name to stdout."""
    resource.setrlimit(resource.RLIMIT_CPU, (MAX_CPU_S, MAX_CPU_S))
    resource.setrlimit(resource.RLIMIT_AS, (MAX_BYTES, MAX_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    regexes, names, is_full = json.load(sys.stdin)
    compiled = [re.compile(regex) for regex in regexes]
    found = []
    for name in names:
        for index, regex in enumerate(compiled):
            if match := regex.fullmatch(name) if is_full else regex.match(name):
                found.append((name, index, match.groupdict().get("idx")))
                break
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
