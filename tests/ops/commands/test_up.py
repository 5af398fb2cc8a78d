"""`lorikeet up` before and after it runs its processes."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from command_line import lorikeet

from ops.commands import up
from ops.commands.clients.client_options import DEFAULT_URL
from ops.local.gpus import Gpus
from ops.local.remembered_servers import remembered_servers
from ops.local.supervisor import ChildFailed
from ops.local.up import Announce, Plan, Ready
from shared.api_keys import ApiKey
from shared.settings import ApiSettings


def plan(url: str = DEFAULT_URL, data_folder: Path | None = None) -> Plan:
    return Plan(
        api=[],
        workers=[],
        control=[],
        api_keys=[],
        metrics_key=None,
        redis_url=None,
        is_strict=False,
        data_folder=data_folder,
        drain_s=0,
        url=url,
    )


@pytest.mark.parametrize("redis_url", ["redis://127.0.0.1:2/0", None])
def test_the_commands_that_are_printed_can_be_pasted(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, redis_url: str | None
) -> None:
    monkeypatch.setattr(sys, "argv", ["/no/virtual/environment/lorikeet", "up"])
    up._announce(plan(), Ready(names=["base", "pirate"], redis_url=redis_url, notes=[]))
    printed = capsys.readouterr().out
    assert [line for line in printed.splitlines() if "/lorikeet " in line] == [
        "/no/virtual/environment/lorikeet chat pirate",
        "/no/virtual/environment/lorikeet status",
    ]
    assert ("Redis: redis://127.0.0.1:2/0" in printed) is (redis_url is not None)


def test_commands_use_a_server_from_its_start_to_its_end(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    started = replace(plan(), api_keys=[ApiKey("red", "r" * 16), ApiKey("admin", "a" * 16)])

    def run(_: Plan, __: object, announce: Announce) -> None:
        assert remembered_servers() == []
        announce(Ready(names=["base"], redis_url=None, notes=[]))
        (server,) = remembered_servers()
        assert (server.url, server.api_key) == (started.url, "a" * 16)
        raise ChildFailed("it failed")

    monkeypatch.setattr(up, "run_plan", run)
    with pytest.raises(ChildFailed):
        up._run(started, [])
    assert remembered_servers() == []


def test_the_message_names_the_data_and_adapters_that_are_not_served_as_given(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    notes = ["a isn't served", "b is left out"]
    up._announce(plan(data_folder=tmp_path), Ready(names=["base"], redis_url=None, notes=notes))
    printed = capsys.readouterr().out
    assert "serves base. But:\n\n- a isn't served\n- b is left out\n\nTry:\n" in printed
    assert f"Data: {tmp_path}" in printed


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


PlanUp = Callable[..., Plan]


@pytest.fixture
def planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PlanUp:
    """Return a function that plans `lorikeet up WORDS` on a machine with two GPUs and no settings.

    The working directory has the folder of a model.
    """
    (tmp_path / "some" / "model").mkdir(parents=True)
    (tmp_path / "some" / "model" / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LORIKEET_ADAPTER_STORE")
    monkeypatch.delenv("REDIS_URL", raising=False)
    plans: list[Plan] = []
    monkeypatch.setattr(up, "usable_gpus", lambda _: Gpus(2))
    monkeypatch.setattr(up, "usable_cores", lambda: 8)
    monkeypatch.setattr(up, "run_plan", lambda plan, *_: plans.append(plan))

    def plan_up(*words: str) -> Plan:
        lorikeet("up", "some/model", "--port", "0", *words)
        return plans[-1]

    return plan_up


def values(plan: Plan, flag: str) -> list[str]:
    """Return the value of a flag for each worker."""
    return [words[words.index(flag) + 1] for words in plan.workers]


def test_each_gpu_gets_a_worker_and_an_equal_share_of_the_cores(planned: PlanUp) -> None:
    plan = planned()
    assert values(plan, "--device") == ["cuda:0", "cuda:1"]
    assert values(plan, "--threads") == ["4", "4"]
    assert values(plan, "--memory-fraction") == ["0.9", "0.9"]


def test_workers_get_the_devices_of_the_flags_and_divide_their_memory(planned: PlanUp) -> None:
    plan = planned("--devices", "cuda:0,cuda:1,cuda:1")
    assert values(plan, "--device") == ["cuda:0", "cuda:1", "cuda:1"]
    assert values(plan, "--memory-fraction") == ["0.9", "0.45", "0.45"]
    plan = planned("--device", "cpu", "--workers", "2", "--memory-fraction", "0.5")
    assert values(plan, "--device") == ["cpu", "cpu"]
    assert values(plan, "--memory-fraction") == ["0.25", "0.25"]


def test_data_and_copies_of_adapters_are_kept_in_the_folder_of_the_user(
    planned: PlanUp, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))
    found = planned()
    folder = found.data_folder
    assert folder is not None
    assert folder.parent == tmp_path / "share" / "lorikeet"
    assert folder.name.startswith("main-model-")
    assert values(found, "--adapter-store") == [str(folder / "adapters")] * 2
    assert planned().data_folder == folder
    assert planned("--pool", "other").data_folder != folder
    elsewhere = planned("--data-dir", str(tmp_path / "here")).data_folder
    assert elsewhere == tmp_path / "here" / folder.name


def test_nothing_is_kept_if_the_user_says_so_or_names_a_redis(
    planned: PlanUp, redis_url: str
) -> None:
    for words in (["--data-dir", "none"], ["--redis-url", redis_url]):
        found = planned(*words)
        assert found.data_folder is None
        assert "--adapter-store" not in found.workers[0]
