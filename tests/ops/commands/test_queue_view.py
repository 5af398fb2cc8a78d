"""What `lorikeet queue` shows of two looks at a pool."""

import io
import re
from dataclasses import replace

from rich.console import Console

from ops.commands.queue import MAX_BACKLOGS, MAX_NAMES, Sample, render
from shared.protocol.ids import AdapterVersion, WorkerId
from shared.protocol.jobs import JobState
from shared.protocol.workers import WorkerInfo
from shared.store.pool_views import Backlog, QueueCounts, WorkerView

INFO = WorkerInfo(model="m", device="cpu", dtype="float32", version="0", max_num_seqs=8)
COUNTS = QueueCounts(
    waiting=3,
    totals={JobState.DONE: 10, JobState.FAILED: 1},
    waiting_by_version={},
    retried=2,
    released=0,
    workers_lost=0,
)


def worker(name: str, tokens: int, *residents: str) -> WorkerView:
    info = replace(INFO, tokens_total=tokens, kv_blocks=100, kv_blocks_free=75)
    held = tuple(map(AdapterVersion, residents))
    return WorkerView(id=WorkerId(name), lease_left_ms=4000, info=info, residents=held, running=2)


def backlog(version: str, waiting: int = 1, waited_ms: int = 0) -> Backlog:
    return Backlog(version=AdapterVersion(version), waiting=waiting, next_waited_ms=waited_ms)


def shown(before: Sample, now: Sample, width: int = 160) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    console.print(render(before, now))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def cells(lines: list[str], name: str) -> list[str]:
    """Its row in the table of workers, or of what waits."""
    row = next(line for line in lines if line.strip().startswith(f"{name} "))
    return re.split(r"\s{2,}", row.strip())


def test_rates_are_what_happened_between_two_looks() -> None:
    later = replace(COUNTS, totals={JobState.DONE: 15, JobState.FAILED: 2})
    before = Sample(100.0, [worker("w1", 1000)], COUNTS, [])
    now = Sample(104.0, [worker("w1", 1400), worker("w2", 9000)], later, [])
    lines = shown(before, now)
    assert lines[0].strip() == "2 workers · 4 running · 3 waiting · 100 tokens/s · 1.5 jobs/s"
    assert cells(lines, "w1") == ["w1", "cpu", "2 of 8", "25%", "100", "1,400", "4.0 s"]
    assert cells(lines, "w2")[4] == "0"  # it is new: what it did before isn't known


def test_one_look_has_no_rates() -> None:
    only = Sample(100.0, [worker("w1", 1000)], COUNTS, [])
    lines = shown(only, only)
    assert lines[0].strip() == "1 worker · 2 running · 3 waiting"
    assert cells(lines, "w1")[4] == "-"


def test_a_backlog_shows_how_long_its_next_job_waits_and_who_holds_it() -> None:
    pool = [worker("w1", 0, "a@1"), worker("w2", 0)]
    lines = shown(*[Sample(1.0, pool, COUNTS, [backlog("a@1", 3, 2500), backlog("b@1")])] * 2)
    assert "3 waiting, up to 2.5 s at a queue's head" in lines[0]
    assert cells(lines, "a@1") == ["a@1", "3", "2.5 s", "1 of 2 workers"]
    assert cells(lines, "b@1") == ["b@1", "1", "0.0 s", "0 of 2 workers"]


def test_workers_are_named_by_host_process_and_a_part_of_their_boot_id() -> None:
    one, two = (worker(f"vm:17:{boot * 32}", 0) for boot in "ab")
    lines = shown(*[Sample(1.0, [one, two], COUNTS, [])] * 2)
    assert cells(lines, "vm:17:aaaaaa")[0] == "vm:17:aaaaaa"
    assert cells(lines, "vm:17:bbbbbb")[0] == "vm:17:bbbbbb"


def test_a_usual_terminal_shows_every_name_and_number_in_one_piece() -> None:
    names = ["extract@893dfec50ca8", "pirate@b13716a93689", "smollm2-135m-instruct@de08613913d4"]
    one = worker(f"vm:17:{'a' * 32}", 123_456_789, *names)
    text = "\n".join(shown(*[Sample(1.0, [one], COUNTS, [backlog(names[2], 5000)])] * 2, width=80))
    for piece in ("vm:17:aaaaaa", "2 of 8", "123,456,789", "1 of 1 workers", *names):
        assert piece in text


def test_long_lists_are_cut() -> None:
    names = [f"n{i}@1" for i in range(MAX_NAMES + 5)]
    backlogs = [backlog(f"v{i}@1") for i in range(MAX_BACKLOGS + 3)]
    text = "\n".join(shown(*[Sample(1.0, [worker("w1", 0, *names)], COUNTS, backlogs)] * 2))
    assert f"n{MAX_NAMES - 1}@1" in text
    assert f"n{MAX_NAMES}@1" not in text
    assert "and 5 more" in text
    assert f"v{MAX_BACKLOGS - 1}@1" in text
    assert f"v{MAX_BACKLOGS}@1" not in text
    assert "and 3 more" in text
