"""`lorikeet login` and `logout`, and the server that commands choose."""

import asyncio
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from api_support import RunningApp, running_app
from command_line import Ended, typed
from key_support import new_key

from ops.commands.clients.client_options import DEFAULT_URL, chosen_server
from ops.local import remembered_servers as module
from ops.local.remembered_servers import (
    config_folder,
    forget_login,
    remember_login,
    remembered_servers,
    remembered_up,
)
from shared.errors import SettingsError
from shared.protocol.access.rights import Scope
from shared.settings import ApiSettings
from shared.store.access.key_store import KeyStore

FIRST, SECOND = "http://first:1", "http://second:2"
KEY, OTHER = "k" * 16, "o" * 16


@pytest.fixture(autouse=True)
def nothing_remembered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    for name in ("LORIKEET_URL", "LORIKEET_API_KEYS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def front_end_settings(settings: ApiSettings) -> ApiSettings:
    return settings.model_copy(update={"require_keys": True})


async def run(*words: str, stdin: str = "") -> Ended:
    return await asyncio.to_thread(typed, *words, stdin=stdin)


def test_a_server_is_chosen_by_flag_then_variable_then_memory_then_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def choice(url: str | None = None, key: str | None = None) -> tuple[str, str | None]:
        server = chosen_server(url, key)
        return server.url, server.api_key

    assert choice() == (DEFAULT_URL, None)
    remember_login(FIRST, KEY)
    assert choice() == (FIRST, KEY)
    assert choice(key=OTHER) == (FIRST, OTHER)
    assert choice(SECOND) == (SECOND, None), "a remembered key isn't sent to another server"
    assert choice(f"{FIRST}/v1/") == (f"{FIRST}/v1/", KEY)
    monkeypatch.setenv("LORIKEET_API_KEYS", f"red:{OTHER}")
    assert choice() == (FIRST, OTHER)
    monkeypatch.setenv("LORIKEET_URL", SECOND)
    assert choice() == (SECOND, OTHER)
    assert choice(FIRST) == (FIRST, OTHER)


def test_a_running_server_is_used_until_it_ends_and_then_the_one_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    remember_login(FIRST, KEY)
    with remembered_up(SECOND, None):
        assert chosen_server(None, None).url == SECOND
        remember_login(FIRST, KEY)
        assert [each.url for each in remembered_servers()] == [FIRST, SECOND]
    assert [each.url for each in remembered_servers()] == [FIRST]


@contextmanager
def up_elsewhere(url: str) -> Iterator[None]:
    """Let another process remember the server at `url`, as `lorikeet up` does."""
    code = (
        "import sys; from ops.local.remembered_servers import remembered_up\n"
        "with remembered_up(sys.argv[1], None):\n    print('ready', flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        yield
        process.communicate("\n")


def test_if_several_servers_run_the_newest_is_read_and_none_is_changed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    several = f"2 servers of yours run, at {SECOND}, {FIRST}"
    with up_elsewhere(FIRST):
        assert chosen_server(None, None, changes=True).url == FIRST
        with up_elsewhere(SECOND):
            assert capsys.readouterr().err == ""
            assert chosen_server(None, None).url == SECOND
            assert capsys.readouterr().err == f"{several}; this command uses {SECOND}\n"
            with pytest.raises(SettingsError, match=f"{several}; name the one to change"):
                chosen_server(None, None, changes=True)
            assert chosen_server(FIRST, None, changes=True).url == FIRST
            with monkeypatch.context() as patch:
                patch.setenv("LORIKEET_URL", FIRST)
                assert chosen_server(None, None, changes=True).url == FIRST
        assert chosen_server(None, None, changes=True).url == FIRST
    assert capsys.readouterr().err == ""


def test_a_login_after_several_starts_is_used(capsys: pytest.CaptureFixture[str]) -> None:
    with up_elsewhere(FIRST), up_elsewhere(SECOND):
        remember_login("http://third:3", KEY)
        assert chosen_server(None, None, changes=True).url == "http://third:3"
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "words",
    [
        ["adapters", "load", "sql", "/a"],
        ["adapters", "unload", "sql"],
        ["adapters", "push", "sql", "/a"],
        ["jobs", "cancel", "1"],
        ["keys", "open"],
    ],
)
def test_commands_that_change_something_are_refused_if_several_servers_run(
    words: list[str],
) -> None:
    with up_elsewhere(FIRST), up_elsewhere(SECOND):
        ended = typed(*words)
    assert (ended.status, ended.out) == (2, "")
    assert "name the one to change with --url" in ended.last_line


def test_the_server_of_a_killed_process_is_not_used_and_its_file_is_removed() -> None:
    stale = config_folder() / "up-1.json"
    stale.parent.mkdir()
    stale.write_text('{"url": "http://killed:1", "api_key": null}')
    assert remembered_servers() == []
    with remembered_up(FIRST, None):
        assert not stale.exists()
        assert [each.url for each in remembered_servers()] == [FIRST]


def test_only_the_user_can_read_what_is_remembered() -> None:
    path = remember_login(FIRST, KEY)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    os.chmod(path, 0o644)
    remember_login(FIRST, KEY)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("text", ["", "{", "[]", '{"url": null', '{"key": 1}'])
def test_a_damaged_file_is_ignored(text: str) -> None:
    remember_login(FIRST, KEY).write_text(text)
    assert remembered_servers() == []
    assert forget_login() is None


def test_a_folder_that_cannot_be_written_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", "/proc")
    with pytest.raises(SettingsError, match=r"can't write /proc/lorikeet/login\.json"):
        remember_login(FIRST, KEY)
    with remembered_up(FIRST, None):
        assert remembered_servers() == []


def test_without_a_home_folder_nothing_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setattr(module.Path, "home", lambda: (_ for _ in ()).throw(RuntimeError))
    assert chosen_server(None, None).url == DEFAULT_URL
    with pytest.raises(SettingsError, match="set XDG_CONFIG_HOME"):
        remember_login(FIRST, KEY)


async def test_a_login_checks_the_key_and_a_logout_forgets_it(
    front_end_settings: ApiSettings, store: KeyStore
) -> None:
    secret, _ = await new_key(store, *Scope)
    few, _ = await new_key(store, Scope.METRICS)
    async with running_app(front_end_settings) as app:
        for words, reason in (
            ([], "an API key is needed"),
            (["--api-key", "x" * 20], "unknown API key"),
        ):
            ended = await run("login", app.url, *words)
            assert (ended.status, reason in ended.last_line) == (1, True)
        assert remembered_servers() == []
        assert (await run("login", app.url, "--api-key", few)).status == 0
        ended = await run("login", f"{app.url}/v1", "--api-key", secret)
        assert f"commands use {app.url} now, with this key" in ended.out
        assert secret not in ended.out
        ended = await run("keys", "list")
        assert (ended.status, "red" in ended.out) == (0, True)
        ended = await run("keys", "create", "--tenant", "blue")
        assert f"pool at {app.url} (from `lorikeet login`)" in ended.err
        ended = await run("logout")
    assert ended.out == f"{app.url} is forgotten\ncommands use {DEFAULT_URL} now\n"
    assert (await run("logout")).out.startswith("no login is remembered\n")


async def test_a_login_reads_the_key_from_standard_input_that_is_no_terminal(
    front_end_settings: ApiSettings, store: KeyStore
) -> None:
    secret, _ = await new_key(store, *Scope)
    async with running_app(front_end_settings) as app:
        for stdin, reason in (("\n", "login {url} < KEYFILE"), ("x" * 20, "unknown API key")):
            ended = await run("login", app.url, stdin=stdin)
            assert (ended.status, reason.format(url=app.url) in ended.last_line) == (1, True)
        assert remembered_servers() == []
        assert (await run("login", app.url, stdin=f"{secret}\n")).status == 0
    assert [each.api_key for each in remembered_servers()] == [secret]


async def test_a_server_without_keys_needs_none(front_end: RunningApp) -> None:
    ended = await run("login", front_end.url)
    assert f"commands use {front_end.url} now, without a key" in ended.out


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "localhost", ""])
def test_a_login_to_no_server_remembers_nothing(url: str) -> None:
    assert typed("login", url).status == 1
    assert remembered_servers() == []
