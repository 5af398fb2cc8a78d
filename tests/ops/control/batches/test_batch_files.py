"""The check of a batch's input file, and what is left in the file store of dead processes."""

import io
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from batch_pool import batch_pool
from batch_records import make_batch, make_file
from body_checks import CHECKS
from body_shapes import MAX_BYTES, Shape, assert_bounded, shape_at, shapes
from hypothesis import example, given, settings
from hypothesis import strategies as st
from queue_support import eventually

from api.access.authenticator import ANONYMOUS
from api.files.file_store import FileStore
from api.files.own_files import content_name
from ops.control.batches.file_sweep import MAX_RUN_S, PARTIAL_S, RETRY_S, FileSweep
from ops.control.batches.lines import MAX_ERRORS, LineCheck, decode_lines, encode_lines
from ops.control.batches.results import ANSWERS, Results
from shared.protocol.ids import FileId
from shared.store.batches.batches import Batches
from shared.store.batches.files import FileQuota, StoredFiles, new_file_id
from shared.store.batches.records import BatchStatus, StoredFile
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys

KEEP_S = 1000
OLD_S = KEEP_S + MAX_RUN_S


@pytest.fixture
def files(redis: Redis, keys: Keys) -> StoredFiles:
    return StoredFiles(redis, keys)


@pytest.fixture
def batches(redis: Redis, keys: Keys) -> Batches:
    return Batches(redis, keys)


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(str(tmp_path / "store"))


@pytest.fixture
def sweep(store: FileStore, files: StoredFiles, batches: Batches) -> FileSweep:
    return FileSweep(store, files, batches, keep_s=KEEP_S)


async def piece() -> AsyncIterator[bytes]:
    yield b"x" * 10


async def stored(store: FileStore, files: StoredFiles) -> StoredFile:
    file = make_file(keep_s=KEEP_S)
    await store.write(content_name(file.id), piece())
    await files.add(file)
    return file


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file()}


async def test_deleted_and_expired_files_are_removed(
    store: FileStore, files: StoredFiles, sweep: FileSweep, tmp_path: Path
) -> None:
    kept, deleted = await stored(store, files), await stored(store, files)
    await files.delete(deleted.id)
    await sweep.run(time.time())
    assert names(tmp_path) == {kept.id}
    await sweep.run(time.time() + KEEP_S + 1)
    assert names(tmp_path) == set()


async def test_a_file_that_cannot_be_deleted_stops_no_other(
    store: FileStore, files: StoredFiles, sweep: FileSweep, tmp_path: Path
) -> None:
    bad = make_file(keep_s=KEEP_S, id=FileId("file-" + "x" * 300))
    await files.add(bad)
    others = [await stored(store, files) for _ in range(3)]
    now = time.time()
    for each in (bad, *others):
        await files.delete(each.id)
    await sweep.run(now)
    assert names(tmp_path) == set()
    assert await files.due(now, limit=5) == []
    assert await files.due(now + RETRY_S, limit=5) == [bad.id]


async def test_the_parts_of_an_ended_batch_are_removed_later(
    store: FileStore, batches: Batches, sweep: FileSweep, tmp_path: Path
) -> None:
    now, batch = time.time(), make_batch()
    await batches.add(batch, keep_s=KEEP_S, max_tenant=1)
    turn = await batches.take_turn()
    assert turn is not None
    part = await Results(store, batch.id).write_part(ANSWERS, [b"x"])
    await sweep.run(now + 100)
    await batches.end(batch.id, turn.runner, BatchStatus.FAILED, keep_s=KEEP_S, announces=False)
    await sweep.run(now)
    assert names(tmp_path) == {part.rpartition("/")[2]}
    await sweep.run(now + 100)
    assert names(tmp_path) == set()
    assert await batches.with_parts(now + 100, limit=1) == []


async def test_objects_without_a_record_are_removed_once_none_can_be_in_use(
    store: FileStore, files: StoredFiles, sweep: FileSweep, tmp_path: Path
) -> None:
    known, now = await stored(store, files), time.time()
    for name in ("files/file-young", "files/file-old", "work/batch_old/1-answers"):
        await store.write(name, piece())
    for path in (tmp_path / "store").rglob("*"):
        if path.is_file() and path.name != "file-young":
            os.utime(path, (now - OLD_S - 1, now - OLD_S - 1))
    await sweep.delete_leftovers(now)
    assert names(tmp_path) == {known.id, "file-young"}


async def test_what_a_killed_writer_has_left_is_removed_after_an_hour(
    sweep: FileSweep, tmp_path: Path
) -> None:
    folder, now = tmp_path / "store" / "files", time.time()
    folder.mkdir()
    (folder / "file-1.partial-abcd").write_bytes(b"x")
    await sweep.delete_leftovers(now + PARTIAL_S - 60)
    assert names(tmp_path) == {"file-1.partial-abcd"}
    await sweep.delete_leftovers(now + PARTIAL_S + 60)
    assert names(tmp_path) == set()


@pytest.mark.slow
async def test_nothing_stays_of_an_upload_whose_front_end_was_killed(
    redis_url: str, pool: str, tmp_path: Path, redis: Redis, keys: Keys, files: StoredFiles
) -> None:
    with batch_pool(redis_url, pool, tmp_path) as running:
        front_end = await running.api()
        folder = running.store / "files"

        async def body() -> AsyncIterator[bytes]:
            yield b'--x\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\n'
            yield b"x" * (4 << 20)
            await eventually(lambda: any(".partial-" in name for name in names(folder)))
            front_end.kill()
            front_end.wait()
            yield b"x" * (4 << 20)

        headers = {"content-type": "multipart/form-data; boundary=x"}
        async with httpx.AsyncClient() as client:
            with pytest.raises(httpx.TransportError):
                await client.post(f"{running.url}/v1/files", content=body(), headers=headers)
        (partial,) = names(folder)
        assert ".partial-" in partial
        assert await redis.hget(keys.stored(ANONYMOUS), "files") == b"1"  # type: ignore[misc]
        store = FileStore(str(running.store))
        sweep = FileSweep(store, files, Batches(redis, keys), keep_s=KEEP_S)
        await sweep.run(time.time() + PARTIAL_S + 60)
        assert names(folder) == set()
        assert await redis.exists(keys.stored(ANONYMOUS)) == 0


async def test_an_upload_whose_process_died_is_given_back(
    files: StoredFiles, sweep: FileSweep, redis: Redis, keys: Keys
) -> None:
    quota, now = FileQuota(5, 100), time.time()
    await files.reserve(new_file_id(), "red", 50, quota=quota, until_s=now + 60)
    await sweep.run(now)
    assert await redis.hget(keys.stored("red"), "bytes") == b"50"  # type: ignore[misc]
    await sweep.run(now + 61)
    assert await redis.exists(keys.stored("red")) == 0


CHAT = "/v1/chat/completions"


def line(custom_id: Any = "a", **changes: Any) -> bytes:
    body = {"model": "extract", "messages": []}
    fields = {"custom_id": custom_id, "method": "POST", "url": CHAT, "body": body, **changes}
    return orjson.dumps({name: value for name, value in fields.items() if value is not ...})


def line_with(value: bytes) -> bytes:
    """Return a line with a value in its body that may not be JSON."""
    return line().replace(b'"messages":[]', b'"temperature":' + value)


NESTED = orjson.loads("[" * 130 + "]" * 130)
"""JSON that is nested more deeply than requests may be."""
SMALL_LINE = orjson.loads(line(body=CHECKS[CHAT].valid))


def checked(content: bytes, *, max_bytes: int = 1000, step: int = 1 << 20) -> LineCheck:
    """Check a file in steps, and return the complete check."""
    check = LineCheck(io.BytesIO(content), CHAT, max_bytes=max_bytes)
    while not check.step(step):
        pass
    return check


def test_each_line_is_found_again_by_its_offset() -> None:
    content = b"\n".join([line("1"), b"", line("2", body={"model": "sql"}), b"  ", line("3")])
    found = checked(content)
    assert found.errors == []
    assert [each.number for each in found.lines] == [0, 1, 2]
    read = [
        orjson.loads(content[each.offset : each.offset + each.num_bytes]) for each in found.lines
    ]
    assert [each["custom_id"] for each in read] == ["1", "2", "3"]
    assert [each.model for each in found.lines] == ["extract", "sql", "extract"]


@pytest.mark.parametrize(
    ("raw", "code", "param"),
    [
        (b"{", "invalid_json_line", None),
        (b"[1]", "invalid_json_line", None),
        (line(body={"model": "a", "x": NESTED}), "invalid_json_line", None),
        (b"\xff\xfe", "invalid_json_line", None),
        (line_with(b"NaN"), "invalid_json_line", None),
        (line_with(b"-Infinity"), "invalid_json_line", None),
        (line_with(b"[" * 300 + b"]" * 300), "invalid_json_line", None),
        (line(...), "invalid_custom_id", "custom_id"),
        (line(7), "invalid_custom_id", "custom_id"),
        (line(""), "invalid_custom_id", "custom_id"),
        (line("b" * 513), "invalid_custom_id", "custom_id"),
        (line("first"), "duplicate_custom_id", "custom_id"),
        (line(method="GET"), "invalid_method", "method"),
        (line(url="/v1/completions"), "mismatched_url", "url"),
        (line(body="text"), "invalid_body", "body"),
        (line(body={}), "missing_model", "body.model"),
        (line(body={"model": 3}), "missing_model", "body.model"),
        (line(body={"model": "m" * 257}), "missing_model", "body.model"),
        (line(body={"model": "a", "stream": True}), "unsupported_field", "body.stream"),
        (line(body={"model": "a", "background": True}), "unsupported_field", "body.background"),
        (line(body={"model": "a", "text": "x" * 1000}), "line_too_large", None),
    ],
)
def test_a_fault_names_its_line(raw: bytes, code: str, param: str | None) -> None:
    found = checked(b"\n".join([line("first"), raw, line("last")]))
    assert found.lines == []
    assert [(each.code, each.param, each.line) for each in found.errors] == [(code, param, 2)]


def test_a_long_line_does_not_hide_the_next() -> None:
    found = checked(b"\n".join([b"x" * 5000, b"{", line("a")]))
    assert [(each.code, each.line) for each in found.errors] == [
        ("line_too_large", 1),
        ("invalid_json_line", 2),
    ]


def test_only_the_first_faults_are_reported() -> None:
    found = checked(b"{\n" * 100)
    assert [each.line for each in found.errors] == list(range(1, MAX_ERRORS + 1))


def test_an_empty_file_is_a_fault() -> None:
    assert [each.code for each in checked(b"\n \n").errors] == ["empty_file"]


def test_too_many_requests_are_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ops.control.batches.lines.MAX_LINES", 2)
    content = [line(str(number)) for number in range(3)]
    assert [each.code for each in checked(b"\n".join(content)).errors] == ["too_many_requests"]
    assert checked(b"\n".join(content[:2])).errors == []


@given(st.integers(1, 5000))
def test_a_check_in_steps_finds_the_same(step: int) -> None:
    content = b"\n".join([line("1"), b"{", b"x" * 3000, b"", line("2")] * 3)
    assert checked(content, step=step).errors == checked(content).errors
    content = b"\n".join(line(str(number)) for number in range(20))
    assert checked(content, step=step).lines == checked(content).lines


@given(st.lists(st.sampled_from(["a", "b", "\u00e9"]), min_size=1, max_size=40))
def test_lines_are_read_as_they_were_kept(models: list[str]) -> None:
    rows = [line(str(i), body={"model": model}) for i, model in enumerate(models)]
    lines = checked(b"\n".join(rows)).lines
    assert decode_lines(encode_lines(lines)) == lines


@given(shapes(SMALL_LINE))
@example(shape_at(SMALL_LINE, ("body", "messages"), "items", b"1", b""))
@settings(max_examples=1, deadline=None)
@pytest.mark.slow
def test_the_check_of_a_line_is_linear_and_bounded(shape: Shape) -> None:
    """Try the body that took longest, and another one. Those of requests have more tries."""
    assert_bounded(lambda raw: checked(raw, max_bytes=MAX_BYTES, step=1 << 40), shape)
