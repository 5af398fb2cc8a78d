"""`lorikeet up` before and after it runs its processes."""

import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ops.cli import app
from ops.commands import up
from ops.commands.client_options import DEFAULT_URL
from ops.local.gpus import Gpus
from ops.local.up import DEFAULT_REDIS_URL, Plan
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


def planned(monkeypatch: pytest.MonkeyPatch, *words: str) -> Plan:
    """Return the plan that `lorikeet up WORDS` would run on a machine with two GPUs."""
    plans: list[Plan] = []
    monkeypatch.setattr(up, "usable_gpus", lambda _: Gpus(2))
    monkeypatch.setattr(up, "usable_cores", lambda: 8)
    monkeypatch.setattr(up, "run_plan", lambda plan, *_: plans.append(plan))
    done = CliRunner().invoke(app, ["up", "some/model", "--port", "0", *words])
    assert done.exit_code == 0, done.output
    return plans[0]


def devices_of(plan: Plan) -> list[str]:
    return [words[words.index("--device") + 1] for words in plan.workers]


def test_each_gpu_gets_a_worker_and_an_equal_share_of_the_cores(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan = planned(monkeypatch)
    assert devices_of(plan) == ["cuda:0", "cuda:1"]
    assert all(words[words.index("--threads") + 1] == "4" for words in plan.workers)


def test_workers_get_the_devices_of_the_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    assert devices_of(planned(monkeypatch, "--devices", "cuda:1,cuda:1")) == ["cuda:1"] * 2
    assert devices_of(planned(monkeypatch, "--device", "cpu", "--workers", "3")) == ["cpu"] * 3


def fractions_of(plan: Plan) -> list[str]:
    return [words[words.index("--memory-fraction") + 1] for words in plan.workers]


def test_workers_of_one_device_divide_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    assert fractions_of(planned(monkeypatch)) == ["0.9", "0.9"]
    assert fractions_of(planned(monkeypatch, "--devices", "cuda:0,cuda:1,cuda:1")) == [
        *("0.9", "0.45", "0.45")
    ]
    plan = planned(monkeypatch, "--device", "cpu", "--workers", "2", "--memory-fraction", "0.5")
    assert fractions_of(plan) == ["0.25", "0.25"]
