from pathlib import Path

import pytest

from shared.adapter_flags import parse_adapter_flags
from shared.adapter_names import is_valid_name
from shared.errors import SettingsError
from shared.settings import WorkerSettings


def test_named_sources_keep_their_order() -> None:
    assert parse_adapter_flags(["sql=/data/a", "chat=org/repo"]) == {
        "sql": "/data/a",
        "chat": "org/repo",
    }


@pytest.mark.parametrize("source", ["/data/pirate", "/data/pirate/", "org/pirate", "pirate"])
def test_a_bare_source_is_named_by_its_last_part(source: str) -> None:
    assert parse_adapter_flags([source]) == {"pirate": source}


def test_the_bare_current_folder_is_named_by_its_own_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sql").mkdir()
    monkeypatch.chdir(tmp_path / "sql")
    assert parse_adapter_flags(["."]) == {"sql": str(tmp_path.resolve() / "sql")}


def test_a_workers_bad_flag_is_refused_when_its_settings_are_made() -> None:
    with pytest.raises(SettingsError, match="the name 'a' is given twice"):
        WorkerSettings(model="base", adapters=("a=org/a", "a=org/b"))


def test_only_the_first_equals_sign_ends_the_name() -> None:
    assert parse_adapter_flags(["a=/data/r=8"]) == {"a": "/data/r=8"}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["a=/x", "a=/y"], "--adapters 'a=/y': the name 'a' is given twice"),
        (["/data/a", "a=/y"], "given twice"),
        (["a="], "no folder or hub id"),
        (["=/x"], "invalid adapter name ''"),
        (["../x=/x"], "invalid adapter name"),
        (["a..b=/x"], "invalid adapter name"),
        (["/data/my adapter"], "invalid adapter name 'my adapter'"),
        ([""], "invalid adapter name|no folder"),
    ],
)
def test_bad_flags_stop_the_start_by_name(flags: list[str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        parse_adapter_flags(flags)


def test_names_are_words_of_ascii_with_slashes() -> None:
    for name in ("a", "org/repo", "v1.2_x-y", "0", "a" * 128):
        assert is_valid_name(name), name
    for name in ("", "-a", ".a", "/a", "a@b", "a b", "a:b", "a\n", "é", "a/../b", "a" * 129):
        assert not is_valid_name(name), name
