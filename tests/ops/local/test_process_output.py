from io import StringIO

import orjson
from rich.console import Console

from ops.local.process_output import Lines, readable


def test_a_json_log_line_becomes_readable() -> None:
    line = orjson.dumps(
        {
            "process": "worker",
            "event": "adapter_loaded",
            "level": "info",
            "timestamp": "2025-01-02T03:04:05.678Z",
            "version": "a@0123",
        }
    ).decode()
    assert readable(line).plain == "03:04:05 adapter_loaded version=a@0123"


def test_a_traceback_follows_its_line() -> None:
    line = orjson.dumps({"event": "step_failed", "level": "error", "exception": "Traceback"})
    assert readable(line.decode()).plain.splitlines()[-1] == "Traceback"


def test_other_output_stays_as_it_is() -> None:
    assert readable("Segmentation fault [core dumped]").plain == "Segmentation fault [core dumped]"
    assert readable("[1, 2]").plain == "[1, 2]"
    assert readable("\x1b[31mred\x1b[0m").plain == "red"


def test_names_are_padded_so_that_lines_align() -> None:
    console = Console(width=80, record=True, file=StringIO())
    lines = Lines(console, ["api", "worker-1"])
    lines.show("api", "hello")
    lines.show("worker-1", "hello")
    assert console.export_text() == "api      | hello\nworker-1 | hello\n"
