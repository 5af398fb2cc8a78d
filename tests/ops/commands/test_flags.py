"""Flags as settings and variables, and the model and adapters that they select."""

from pathlib import PosixPath
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from ops.commands import base_model as module
from ops.commands.base_model import DEMO, DEMO_ADAPTERS, base_model
from ops.commands.flags import read_settings, settings_flags, spread_adapters, to_argv, to_variables
from shared.settings import ApiSettings, WorkerSettings


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (
            ["up", "base", "--adapters", "a=x", "b=org/repo", "--port", "1"],
            ["up", "base", "--adapters", "a=x", "--adapters", "b=org/repo", "--port", "1"],
        ),
        (
            ["up", "--adapters", "a=x", "--adapters", "b=y", "c=z"],
            ["up", "--adapters", "a=x", "--adapters", "b=y", "--adapters", "c=z"],
        ),
        (["up", "--adapters=a=x", "base"], ["up", "--adapters=a=x", "base"]),
        (["up", "--adapters"], ["up", "--adapters"]),
        (["up", "--port", "1", "base"], ["up", "--port", "1", "base"]),
        ([], []),
    ],
)
def test_words_after_adapters_each_get_the_flag(argv: list[str], expected: list[str]) -> None:
    assert spread_adapters(argv) == expected


def parse(*words: str) -> dict[str, Any]:
    """Return the values that a command with the worker's flags receives."""
    app, received = typer.Typer(), []

    @app.command()
    @settings_flags(WorkerSettings)
    def run(**given: Any) -> None:
        received.append(given)

    result = CliRunner().invoke(app, ["--model", "m", *words])
    assert result.exit_code == 0, result.output
    return received[0]


def test_every_setting_is_a_flag_that_defaults_to_the_setting() -> None:
    given = parse("--adapters", "a=x", "--adapters", "b", "--max-num-seqs", "3")
    assert set(given) == {*WorkerSettings.model_fields, "help_all"}
    settings = read_settings(WorkerSettings, given)
    assert settings.adapters == ("a=x", "b")
    assert settings.max_num_seqs == 3
    assert settings.lease_ms == WorkerSettings.model_fields["lease_ms"].default


@pytest.mark.parametrize(("words", "is_on"), [([], True), (["--no-prefix-cache"], False)])
def test_a_setting_that_is_on_by_default_has_a_flag_that_turns_it_off(
    words: list[str], is_on: bool
) -> None:
    given = parse(*words)
    assert read_settings(WorkerSettings, given).prefix_cache is is_on
    assert to_argv(given, ["prefix_cache"]) == words


def test_a_flag_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORIKEET_PORT", "1111")
    assert read_settings(ApiSettings, {"port": None}).port == 1111
    assert read_settings(ApiSettings, {"port": 0}).port == 0


def test_redis_is_found_by_flag_then_lorikeets_variable_then_redis_url(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("LORIKEET_REDIS_URL", raising=False)
    monkeypatch.setenv("REDIS_URL", "redis://customary")
    assert read_settings(ApiSettings, {}).redis_url == "redis://customary"
    monkeypatch.setenv("LORIKEET_REDIS_URL", "redis://ours")
    assert read_settings(ApiSettings, {}).redis_url == "redis://ours"
    assert read_settings(ApiSettings, {"redis_url": "redis://flag"}).redis_url == "redis://flag"


def test_a_childs_command_line_has_the_given_flags() -> None:
    given = {"model": "m", "adapters": ["a=x", "b"], "port": 0, "dtype": None}
    assert to_argv(given, ["model", "adapters", "port", "dtype", "device"]) == [
        *("--model", "m", "--adapters", "a=x", "--adapters", "b", "--port", "0")
    ]


def test_given_flags_become_variables_that_a_process_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"tenant_weights": ["red=2", "blue=0.5"], "max_body_bytes": 5000, "retain_s": None}
    names = ["tenant_weights", "max_body_bytes", "retain_s", "drain_s"]
    variables = to_variables(given, names)
    assert variables == {
        "LORIKEET_TENANT_WEIGHTS": "red=2 blue=0.5",
        "LORIKEET_MAX_BODY_BYTES": "5000",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    settings = read_settings(ApiSettings, {})
    assert settings.weight_by_tenant == {"red": 2, "blue": 0.5}


NOTHING = {"model": None, "adapters": None}
SHIPPED = [f"{folder.name}={folder}" for folder in sorted(DEMO_ADAPTERS.iterdir())]
MADE = "folder of the demo model"


class MadeFolder(PosixPath):
    """A folder of the demo model that seems to exist, so that no process converts the model."""

    def is_dir(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def no_demo_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "demo_folder", lambda: MadeFolder(MADE))
    for name in ("LORIKEET_MODEL", "LORIKEET_ADAPTERS"):
        monkeypatch.delenv(name, raising=False)


def test_a_model_is_named_by_position_or_by_flag() -> None:
    assert base_model("org/m", NOTHING) == {"model": "org/m"}
    assert base_model(None, {**NOTHING, "model": "org/m"}) == {"model": "org/m"}


def test_the_demo_is_served_only_by_name_or_default(monkeypatch: pytest.MonkeyPatch) -> None:
    demo = {"model": MADE, "adapters": SHIPPED}
    assert base_model(None, NOTHING) == {"model": None}
    assert base_model(DEMO, NOTHING) == demo
    assert base_model(None, NOTHING, default=DEMO) == demo
    monkeypatch.setenv("LORIKEET_MODEL", "org/m")
    assert base_model(None, NOTHING, default=DEMO) == {"model": "org/m"}
    monkeypatch.setenv("LORIKEET_MODEL", DEMO)
    assert base_model(None, NOTHING) == demo


def test_the_demo_serves_its_own_adapters_only_if_none_are_chosen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chosen = {"model": DEMO, "adapters": ["a=x"]}
    assert base_model(None, chosen)["adapters"] == ["a=x"]
    monkeypatch.setenv("LORIKEET_ADAPTERS", "b=y")
    assert base_model(DEMO, NOTHING)["adapters"] is None  # deferred to the environment
    assert base_model(None, chosen)["adapters"] == ["a=x"]


def test_the_demo_is_only_a_name_for_the_simulated_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = {**NOTHING, "engine": "simulated"}
    assert base_model(None, chosen, default=DEMO) == {"model": DEMO}
    monkeypatch.setenv("LORIKEET_ENGINE", "simulated")
    assert base_model(DEMO, NOTHING) == {"model": DEMO}
