"""The model and adapters that a command line selects, without making the demo model."""

from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from ops.commands import base_model as module
from ops.commands.base_model import DEMO, DEMO_ADAPTERS, base_model

NOTHING = {"model": None, "adapters": None}
SHIPPED = [f"{folder.name}={folder}" for folder in sorted(DEMO_ADAPTERS.iterdir())]
MADE = "folder of the demo model"


class NoProcess(ThreadPoolExecutor):
    """Stands in for the process that makes the demo model."""

    def __init__(self, *_: object, **__: object) -> None:
        super().__init__(1)

    def submit(self, *_: object) -> Future[str]:  # type: ignore[override]
        return super().submit(str, MADE)


@pytest.fixture(autouse=True)
def no_demo_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ProcessPoolExecutor", NoProcess)
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
