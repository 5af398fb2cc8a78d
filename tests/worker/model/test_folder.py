"""The digest of a model's files is computed beside loading, and covers names and contents."""

import hashlib
from pathlib import Path
from threading import Barrier

import pytest

from shared.errors import ModelRejected
from worker.model.loading import folder as folder_module
from worker.model.loading.folder import digest_of


def digest(folder: Path) -> str:
    with digest_of("x", folder) as found:
        return found.result()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "b.safetensors").write_bytes(bytes(range(256)) * 100)
    (tmp_path / "a.safetensors").write_bytes(b"")
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "notes.md").write_text("not part of the model")
    return tmp_path


def test_the_digest_of_a_folder_never_changes(folder: Path) -> None:
    expected = hashlib.sha256()
    for name in ("a.safetensors", "b.safetensors", "config.json"):
        content = (folder / name).read_bytes()
        expected.update(name.encode() + b"\0" + hashlib.sha256(content).digest())
    assert digest(folder) == expected.hexdigest()


def test_files_larger_than_a_chunk_are_read_whole(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = digest(folder)
    monkeypatch.setattr(folder_module, "CHUNK_BYTES", 1000)
    assert digest(folder) == expected


def test_files_are_hashed_at_once_and_beside_other_work(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    everyone = Barrier(4)

    def wait_for_the_others(*_: object) -> bytes:
        everyone.wait(10)
        return b""

    monkeypatch.setattr(folder_module, "_sha256", wait_for_the_others)
    with digest_of("x", folder):
        everyone.wait(10)


def test_a_file_that_cannot_be_read_is_named(folder: Path) -> None:
    (folder / "tokenizer.json").symlink_to(folder / "missing")
    with pytest.raises(ModelRejected, match=r"--model x: .*tokenizer\.json can't be read"):
        digest(folder)


def test_the_threads_end_when_loading_fails(folder: Path) -> None:
    with pytest.raises(RuntimeError), digest_of("x", folder):
        raise RuntimeError
