"""Rows, table and finding of measured script calls."""

from rich.console import Console

from ops.bench.scripts.costs import (
    TABLE_WIDTH,
    Call,
    costs_finding,
    costs_table,
    rows,
    stated_bound,
)
from shared.store.redis.scripts import script_names


def call(script: str, ms: float, *, commands: int = 10, situation: str = "one") -> Call:
    return Call(script=script, situation=situation, commands=commands, ms=ms, cpu_ms=ms)


CALLS = [
    call("reap", 2.0),
    call("claim", 1.0, commands=10),
    call("claim", 6.0, commands=30),
    call("claim", 2.0, commands=20),
    call("claim", 0.5, situation="other"),
]


def test_calls_of_one_script_in_one_situation_make_a_row() -> None:
    found = rows(CALLS)
    assert [(row.script, row.situation) for row in found] == [
        ("claim", "one"),
        ("claim", "other"),
        ("reap", "one"),
    ]
    row = found[0]
    assert (row.calls, row.commands, row.max_commands) == (3, 20, 30)
    assert (row.median_ms, row.max_ms, row.num_slow) == (2.0, 6.0, 1)


def test_the_slowest_call_is_named_and_slow_ones_are_counted() -> None:
    finding = costs_finding(CALLS, None)
    assert finding.says == (
        "slowest call of a script: claim (one), 6.0 ms of Redis; 1 of 5 calls took over 5 ms",
    )
    assert finding.chart.series["slowest call"] == [(30, 6.0), (10, 0.5), (10, 2.0)]


def test_slow_calls_are_marked_in_the_table() -> None:
    console = Console(width=TABLE_WIDTH)
    with console.capture() as captured:
        console.print(costs_table(rows(CALLS)))
    lines = captured.get().splitlines()
    assert [line.split()[:2] for line in lines if "! " in line] == [["claim", "one"]]
    assert len([line for line in lines if line.strip()]) == 2 + 3


def test_every_script_states_how_many_commands_it_makes() -> None:
    assert stated_bound("finish") == "60"
    assert stated_bound("hand_on") == "73 each"
    assert stated_bound("beat") == "55 +"
    assert [name for name in script_names() if not stated_bound(name)] == ["durability_barrier"]
