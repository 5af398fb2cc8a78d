"""`lorikeet up` before and after it runs its processes."""

import sys
from pathlib import Path

import pytest

from ops.commands import up
from ops.commands.client_options import DEFAULT_URL
from ops.local.up import DEFAULT_REDIS_URL
from shared.settings import ApiSettings


@pytest.mark.parametrize(
    ("url", "redis_url", "expected"),
    [
        (DEFAULT_URL, DEFAULT_REDIS_URL, ["lorikeet chat pirate", "lorikeet queue --watch"]),
        (DEFAULT_URL, None, ["lorikeet chat pirate"]),
        (
            "http://127.0.0.1:1",
            "redis://127.0.0.1:2/0",
            [
                "lorikeet chat pirate --url http://127.0.0.1:1",
                "lorikeet queue --watch --redis-url redis://127.0.0.1:2/0",
            ],
        ),
    ],
)
def test_the_commands_that_are_printed_can_be_pasted(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    url: str,
    redis_url: str | None,
    expected: list[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["/no/virtual/environment/lorikeet", "up"])
    up._announce(url, ["base", "pirate"], redis_url, has_keys=False)
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if "/lorikeet " in line] == [
        f"/no/virtual/environment/{line}" for line in expected
    ]


def test_a_program_on_the_path_is_called_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "lorikeet"
    program.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "argv", [str(program), "up"])
    assert up._program() == "lorikeet"
    monkeypatch.setenv("PATH", "")
    assert up._program() == str(program)


def test_no_secret_is_on_a_childs_command_line() -> None:
    given = {
        "host": "::1",
        "redis_url": "redis://:pw@r",
        "api_keys": ["k" * 16],
        "metrics_key": "m" * 16,
    }
    assert up._child_flags(ApiSettings, given) == ["--host", "::1"]


@pytest.mark.parametrize(("host", "shown"), [("0.0.0.0", "127.0.0.1"), ("::", "[::1]")])
def test_a_server_on_all_addresses_is_announced_at_one_that_answers(host: str, shown: str) -> None:
    assert up._url(host, 80) == f"http://{shown}:80"
