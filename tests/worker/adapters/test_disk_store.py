"""Copies of adapters' files, also of uploads while they are read."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from shared.errors import AdapterRejected, SettingsError, StoreFailed
from shared.protocol.adapter_files import CONFIG_FILE, CONFIG_KEY, WEIGHTS_FILE, upload_source
from shared.protocol.ids import AdapterVersion, UploadId
from shared.store.adapters.uploads import Uploads
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys
from worker.adapters import disk_store
from worker.adapters.disk_store import AdapterStore
from worker.adapters.source.upload_fetcher import UploadFetcher

ONE, TWO, THREE = (digit * 64 for digit in "123")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    file = tmp_path / "weights"
    file.write_bytes(b"x" * 100)
    return file


@pytest.fixture
def store(tmp_path: Path) -> AdapterStore:
    return AdapterStore(tmp_path / "a" / "store", max_bytes=250)


def test_a_copy_outlives_its_source_and_is_made_once_by_many_at_a_time(
    store: AdapterStore, source: Path, tmp_path: Path
) -> None:
    assert (tmp_path / "a" / "store").stat().st_mode & 0o777 == 0o700
    for name in ("..", "../store", ".", "", "x" * 64, ONE + "/"):
        assert store.folder_of(name) is None
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(store.keep, [ONE] * 8, [[source]] * 8))
    source.write_bytes(b"y")
    store.keep(ONE, [source])
    folder = store.folder_of(ONE)
    assert folder is not None
    assert (folder / "weights").read_bytes() == b"x" * 100
    assert [(copy.digest, copy.num_bytes) for copy in store.copies()] == [(ONE, 100)]
    for _ in range(2):
        store.discard(ONE)
    assert store.copies() == []


def test_a_copy_that_fails_leaves_nothing_and_names_the_file_or_the_store(
    store: AdapterStore, source: Path
) -> None:
    with pytest.raises(StoreFailed, match=r"^can't copy \S*/missing: No such file or directory$"):
        store.keep(ONE, [source, source.parent / "missing"])
    folder = source.parent / "a" / "store"
    assert store.folder_of(ONE) is None
    assert store.copies() == list(folder.iterdir()) == []
    folder.rmdir()
    folder.touch()
    with pytest.raises(StoreFailed, match=rf"--adapter-store: {folder} can't be written"):
        store.keep(ONE, [source])


def test_the_least_worthy_go_first_and_of_equals_the_longest_unused(
    store: AdapterStore, source: Path, tmp_path: Path
) -> None:
    for age, digest in enumerate((ONE, TWO, THREE)):
        store.keep(digest, [source])
        os.utime(tmp_path / "a" / "store" / digest, (age, age))
    assert store.is_too_large
    assert store.trim(lambda digest: digest == ONE) == [TWO]
    assert not store.is_too_large
    assert store.trim(lambda _: 0) == []
    store.keep(TWO, [source])
    assert store.folder_of(ONE)  # it is used just now
    os.utime(tmp_path / "a" / "store" / TWO, (9, 9))
    assert store.trim(lambda _: 0) == [THREE]


def test_the_start_removes_what_a_killed_process_left_unless_the_folder_cannot_be_written(
    store: AdapterStore, tmp_path: Path
) -> None:
    folder = tmp_path / "a" / "store"
    old, new = folder / ".new-old", folder / ".new-new"
    for unfinished in (old, new):
        unfinished.mkdir()
        (unfinished / "weights").touch()
    os.utime(old, (0, 0))
    AdapterStore(folder, max_bytes=1)
    assert not old.exists()
    assert new.exists()
    assert disk_store.UNFINISHED_S >= 600
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match=r"--adapter-store: .* can't be written"):
        AdapterStore(tmp_path / "file" / "store", max_bytes=1)


def test_an_upload_becomes_a_copy_by_a_rename_and_only_uploads_are_listed(
    store: AdapterStore, source: Path
) -> None:
    store.keep("b" * 64, [source])
    version, digest = AdapterVersion("a@1"), "a" * 64
    for _ in range(2):  # the second one finds a copy
        staged = store.staging(UploadId("1" * 32))
        staged.mkdir(exist_ok=True)
        (staged / "weights").write_bytes(b"12")
        store.adopt(version, digest, staged)
    copy = store.folder_of(digest)
    assert copy
    assert (copy / "weights").read_bytes() == b"12"
    assert store.uploads(unused_s=0) == {digest: version}
    assert store.uploads(unused_s=60) == {}
    store.discard(digest)
    assert store.uploads(unused_s=0) == {}


UPLOAD = UploadId("1" * 32)
UPLOAD_SOURCE = upload_source(UPLOAD)
WEIGHTS = {"a": torch.zeros(2)}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (save(WEIGHTS, {CONFIG_KEY: '{"r": 4}'}), None),
        (save(WEIGHTS), "under the key `adapter_config`"),
        (b"1234", "under the key `adapter_config`"),
        (None, "have expired"),
    ],
)
async def test_the_configuration_may_be_in_the_metadata(
    redis: Redis, keys: Keys, tmp_path: Path, body: bytes | None, reason: str | None
) -> None:
    uploads, store = Uploads(redis, keys), AdapterStore(tmp_path / "store", max_bytes=1 << 20)
    if body is not None:
        await uploads.append(UPLOAD, "0", body, tenant="red", num_left=0, ttl_ms=60_000)
    fetcher, folder = UploadFetcher(uploads, store), store.staging(UPLOAD)
    if reason:
        with pytest.raises(AdapterRejected, match=reason):
            async with fetcher.fetched(UPLOAD_SOURCE):
                raise AssertionError("the block must not run")
    else:
        async with fetcher.fetched(UPLOAD_SOURCE):
            assert (folder / WEIGHTS_FILE).read_bytes() == body
            assert (folder / CONFIG_FILE).read_text() == '{"r": 4}'
    assert not folder.exists()
