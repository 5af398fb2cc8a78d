"""`lorikeet batch`, against a pool of processes."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
from batch_pool import BatchPool, batch_pool, check_answers, requests
from servers import LORIKEET
from simulated_workers import NAME

pytestmark = pytest.mark.slow

NUMBER, MAX_TOKENS = 30, 4


@pytest.fixture
async def running(redis_url: str, pool: str, tmp_path: Path) -> Iterator[BatchPool]:
    with batch_pool(redis_url, pool, tmp_path) as running:
        running.worker(simulated_step_ms=2)
        running.control()
        await running.api()
        yield running


def lorikeet_batch(
    running: BatchPool, file: Path, *flags: str
) -> "subprocess.CompletedProcess[str]":
    command = [str(LORIKEET), "batch", str(file), "--url", running.url, *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


async def test_a_file_is_answered_and_found_again(running: BatchPool, tmp_path: Path) -> None:
    file = tmp_path / "in.jsonl"
    file.write_bytes(requests([NAME], NUMBER, max_tokens=MAX_TOKENS))
    first = lorikeet_batch(running, file)
    assert first.returncode == 0, first.stderr
    answers = tmp_path / "in.jsonl.answers.jsonl"
    check_answers(answers.read_bytes(), [NAME], NUMBER, max_tokens=MAX_TOKENS)
    answers.unlink()
    again = lorikeet_batch(running, file, "--output", str(tmp_path / "out"))
    assert again.returncode == 0, again.stderr
    check_answers((tmp_path / "out").read_bytes(), [NAME], NUMBER, max_tokens=MAX_TOKENS)
    started, followed = first.stdout.split()[:2], again.stdout.split()[:2]
    assert (started[0], followed[0]) == ("started", "follows")
    assert started[1] == followed[1], "the same batch"


async def test_failed_requests_change_the_exit_status(running: BatchPool, tmp_path: Path) -> None:
    file = tmp_path / "in.jsonl"
    file.write_bytes(requests([NAME, "unknown"], 4, max_tokens=MAX_TOKENS))
    result = lorikeet_batch(running, file)
    assert result.returncode == 1
    assert "completed: 2 of 4 answered" in result.stdout
    lines = (tmp_path / "in.jsonl.failures.jsonl").read_bytes().splitlines()
    assert [orjson.loads(line)["response"]["status_code"] for line in lines] == [404, 404]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"nonsense", "isn't a request"),
        (b'{"url": "/v1/images"}', "endpoint"),
        (requests([NAME], 1, max_tokens=1) + b"\n{", "line 2"),
    ],
)
async def test_a_bad_file_is_refused(
    running: BatchPool, tmp_path: Path, content: bytes, message: str
) -> None:
    file = tmp_path / "in.jsonl"
    file.write_bytes(content)
    result = lorikeet_batch(running, file)
    assert result.returncode != 0
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_a_missing_file_and_a_missing_server_are_said_plainly(tmp_path: Path) -> None:
    command = [str(LORIKEET), "batch", str(tmp_path / "none"), "--url", "http://127.0.0.1:1"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (result.returncode, "No such file" in result.stderr) == (2, True)
    file = tmp_path / "in.jsonl"
    file.write_bytes(requests([NAME], 1, max_tokens=1))
    result = subprocess.run(
        [*command[:2], str(file), *command[3:]], capture_output=True, text=True, timeout=60
    )
    assert (result.returncode, "no answer from" in result.stderr) == (1, True)
