import threading
from collections.abc import Iterator
from unittest.mock import Mock

import pytest
from child_processes import wait_until
from engine_requests import make_request
from scripted_engine import ENDLESS, ScriptedEngine

from worker.engine.request import Request, StepOutput
from worker.engine.thread import EngineThread


class Running:
    """An engine thread over a scripted engine, and all its outputs."""

    def __init__(self, engine: ScriptedEngine) -> None:
        self.engine = engine
        self.outputs: list[StepOutput] = []
        self.takers: list[str] = []
        """Threads that took cores, each time."""
        self.is_broken = threading.Event()
        self.thread = EngineThread(engine, take_cores=self._take_cores)
        self.thread.start(on_outputs=self.outputs.extend, on_broken=self.is_broken.set)

    def _take_cores(self) -> None:
        self.takers.append(threading.current_thread().name)

    def of(self, name: str) -> list[StepOutput]:
        return [output for output in list(self.outputs) if output.request_id == name]


@pytest.fixture
def running() -> Iterator[Running]:
    running = Running(ScriptedEngine())
    yield running
    running.thread.stop()


def request(name: str, max_tokens: int = 3) -> Request:
    return make_request(name, [9], max_tokens=max_tokens)


def test_the_engine_thread_takes_its_cores_at_once_and_before_each_step_while_it_has_work(
    running: Running,
) -> None:
    wait_until(lambda: running.takers)
    running.thread.add(request("a"))
    wait_until(lambda: len(running.of("a")) == 3)
    num_steps, again = (
        running.thread.call(lambda engine: engine.stats().num_steps).result(5) for _ in range(2)
    )
    assert again == num_steps, "an idle engine is not stepped"
    assert running.takers == ["engine"] * (1 + num_steps)
    running.thread.add(request("b", ENDLESS))
    called = running.thread.call(lambda _: "ran")
    running.thread.stop()
    assert called.result(0) == "ran", "it stops after the calls made before"


def test_a_call_hands_its_exception_to_whoever_waits(running: Running) -> None:
    with pytest.raises(ValueError, match="scripted"):
        running.thread.call(Mock(side_effect=ValueError("scripted"))).result(5)
    assert running.thread.call(lambda _: 1).result(5) == 1


def test_a_request_that_the_engine_refuses_gets_an_error(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running.engine, "add", Mock(side_effect=RuntimeError("scripted")))
    running.thread.add(request("a"))
    wait_until(lambda: running.of("a"))
    assert running.of("a")[0].error is not None


@pytest.mark.parametrize("ends_thread", [False, True])
def test_an_engine_that_only_fails_and_a_thread_that_ends_by_a_fault_are_reported_as_broken(
    running: Running, monkeypatch: pytest.MonkeyPatch, ends_thread: bool
) -> None:
    running.engine.num_failures_in_a_row = 2
    running.thread.add(request("a"))
    wait_until(lambda: len(running.of("a")) == 3)
    assert not running.is_broken.is_set()
    if ends_thread:
        monkeypatch.setattr(running.engine, "stats", Mock(side_effect=RuntimeError("scripted")))
    else:
        running.engine.num_failures_in_a_row = 3
    running.thread.add(request("b", ENDLESS))
    wait_until(running.is_broken.is_set)
    assert running.of("b")[-1].error is not None
