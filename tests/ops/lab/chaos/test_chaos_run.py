"""A short chaos run, its faults, and the requests and answers of its clients."""

import random
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import httpx
import orjson
import pytest

from ops.lab.chaos.cluster.pool import Pool
from ops.lab.chaos.faults import fault as fault_module
from ops.lab.chaos.faults.fault import Fault, Scene, strike
from ops.lab.chaos.faults.kinds import KINDS, chosen_kinds, need_network
from ops.lab.chaos.load.answer import DONE, Answer
from ops.lab.chaos.load.fleet import Fleet
from ops.lab.chaos.load.requests import STALLED_CHOICES, WEIGHTS, Manner, Question, RequestSource
from ops.lab.chaos.load.sse import Event, read_events
from ops.lab.chaos.load.text_checks import SimulatedTexts, problems_of, problems_of_part
from ops.lab.chaos.schedule import WARM_UP_S, plan_faults
from shared.errors import RedisUnavailable, SettingsError
from shared.protocol.ids import AdapterVersion
from worker.engine_simulated.tokens import (
    TEXT_CHARS,
    chat_text,
    first_state,
    next_step,
    prompt_ids,
    token_text,
)


def source(client: int = 1) -> RequestSource:
    return RequestSource(7, client, models=("base", "adapter-0"), lengths=(10, 20))


def test_the_seed_determines_the_requests_and_no_two_are_equal() -> None:
    first, again = source(), source()
    drawn = [first.draw() for _ in range(1000)]
    assert drawn == [again.draw() for _ in range(1000)]
    assert set(Counter(request.manner for request in drawn)) == set(WEIGHTS)
    for part in ("key", "question"):
        assert len({getattr(request, part) for request in [*drawn, source(2).draw()]}) == 1001


def test_bodies_and_headers_express_the_manner() -> None:
    drawn = source()
    assert drawn.draw(Manner.BACKGROUND).body["background"] is True
    assert drawn.draw(Manner.STREAM).body["stream"] is True
    assert drawn.draw(Manner.WHOLE).body["stream"] is False
    assert drawn.draw(Manner.STALL).question.n == STALLED_CHOICES
    away = drawn.draw(Manner.STAY_AWAY)
    assert away.headers == {"Idempotency-Key": away.key, "X-Lorikeet-On-Disconnect": "continue"}


async def test_events_are_read_and_comments_and_cut_off_events_ignored() -> None:
    text = ": keep-alive\nid: 7\ndata: a\ndata: b\n\ndata: [DONE]\n\nid: 2\ndata: c\n"
    events = [event async for event in read_events(httpx.Response(200, text=text))]
    assert events == [Event("7", "a\nb"), Event(None, "[DONE]")]


def chunk(index: int, text: str, finish: str | None = None, number: int = 0) -> Event:
    choice = {"index": index, "text": text, "finish_reason": finish}
    return Event(f"id-{number}", orjson.dumps({"choices": [choice]}).decode())


def test_texts_of_choices_are_joined_and_the_last_id_is_kept() -> None:
    answer = Answer()
    events = [chunk(0, "ab", number=1), chunk(1, "x"), chunk(0, "c", "length", 3)]
    assert [answer.add_event(event) for event in events] == [2, 1, 1]
    assert answer.texts == {0: "abc", 1: "x"}
    assert (answer.finishes, answer.last_id) == ({0: "length"}, "id-3")
    answer.add_event(chunk(0, "de"))
    assert answer.num_after_finish == 2
    assert not answer.is_ended
    answer.add_event(Event(None, DONE))
    assert answer.is_ended


@pytest.mark.parametrize(("code", "is_ended"), [("server_stopping", False), ("cancelled", True)])
def test_only_a_stopping_front_end_interrupts_a_stream(code: str, is_ended: bool) -> None:
    answer = Answer()
    answer.add_event(Event(None, orjson.dumps({"error": {"code": code}}).decode()))
    assert answer.is_ended == is_ended
    assert answer.error == (code if is_ended else None)


PARTS = [{"text": "ab"}, {"text": "c"}]


@pytest.mark.parametrize(
    "body",
    [
        {"choices": [{"index": 0, "finish_reason": "length", "text": "abc"}]},
        {"choices": [{"index": 0, "finish_reason": "length", "message": {"content": "abc"}}]},
        {"choices": None, "answer": {"content": PARTS, "stop_reason": "max_tokens"}},
        {"choices": None, "answer": {"output": [{"content": PARTS}], "status": "incomplete"}},
    ],
)
def test_bodies_of_all_endpoints_are_read(body: dict[str, Any]) -> None:
    answer = Answer()
    answer.add_job(body)
    assert (answer.texts, answer.finishes) == ({0: "abc"}, {0: "length"})
    assert answer.is_ended


VERSION = "a@0123456789ab"
ASKED = Question(model="a", prompt="hello", is_chat=False, seed=5, n=2, num_tokens=6)
TEXTS = SimulatedTexts({"a": VERSION})


def answer_of(question: Question) -> Answer:
    answer = Answer(is_ended=True)
    prompt = chat_text(question.messages) if question.is_chat else question.prompt
    for choice in range(question.n):
        state = first_state(
            AdapterVersion(VERSION), prompt_ids(prompt), seed=question.seed, choice=choice
        )
        for number in range(question.num_tokens):
            step = next_step(state, 9)
            is_last = number == question.num_tokens - 1
            answer.add(choice, token_text(step.token_id), "length" if is_last else None)
            state = step.state
    return answer


@pytest.mark.parametrize("is_chat", [False, True])
def test_a_right_answer_has_no_problems(is_chat: bool) -> None:
    question = replace(ASKED, is_chat=is_chat)
    assert problems_of(question, answer_of(question), TEXTS) == []


def test_a_wrong_text_a_missing_choice_and_a_wrong_end_are_found() -> None:
    answer = answer_of(ASKED)
    del answer.texts[1]
    answer.texts[0] = answer.texts[0][:TEXT_CHARS] + answer.texts[0]
    answer.finishes[0] = "stop"
    answer.num_after_finish = 3
    *found, repeated = problems_of(ASKED, answer, TEXTS)
    assert found == [
        "choices [0], finished [0, 1]",
        "choice 0 finished by stop",
        "3 characters after the finish reason",
    ]
    assert repeated.startswith("choice 0: repetition at token")


def test_a_part_of_an_answer_may_end_early_but_not_be_wrong() -> None:
    text = answer_of(ASKED).texts[0]
    assert problems_of_part(ASKED, Answer(texts={0: text[: 3 * TEXT_CHARS]}), TEXTS) == []
    spliced = Answer(texts={0: text[:TEXT_CHARS] + text[2 * TEXT_CHARS :]})
    assert len(problems_of_part(ASKED, spliced, TEXTS)) == 1


SCENE = Scene(pool=cast(Pool, None), fleet=cast(Fleet, None), rng=random.Random(1))


class ScriptedFault(Fault):
    """A fault whose steps succeed at the second attempt, unless a step is in `never`."""

    kind = "scripted"
    subject = "worker"

    def __init__(self, never: str = "") -> None:
        super().__init__(SCENE)
        self.calls: list[str] = []
        self.target = "worker-0"
        self.never = never

    def _succeeds(self, step: str) -> bool:
        self.calls.append(step)
        return self.calls.count(step) > 1 and step != self.never

    async def inject(self) -> None:
        if not self._succeeds("inject"):
            raise RedisUnavailable("no master")

    async def evidence(self) -> str:
        return "seen" if self._succeeds("evidence") else ""

    async def heal(self) -> None:
        if not self._succeeds("heal"):
            raise RedisUnavailable("no master")

    async def has_recovered(self) -> bool:
        return self._succeeds("recovered")


async def test_each_step_is_repeated_until_it_succeeds() -> None:
    fault = ScriptedFault()
    record = await strike(fault, SCENE.rng)
    assert fault.calls == [*["inject"] * 2, *["evidence"] * 2, *["heal"] * 2, *["recovered"] * 2]
    assert (record.evidence, record.error) == ("seen", "")
    assert record.recovered_s is not None
    assert record.injected_s < record.healed_s < record.recovered_s


async def test_a_fault_that_does_not_take_place_is_healed_and_reported(monkeypatch) -> None:
    monkeypatch.setattr(fault_module, "EVIDENCE_S", 0.1)
    fault = ScriptedFault(never="evidence")
    record = await strike(fault, SCENE.rng)
    assert "did not take place" in record.error
    assert record.evidence == ""
    assert "heal" in fault.calls


async def test_a_part_that_does_not_recover_is_reported(monkeypatch) -> None:
    monkeypatch.setattr(fault_module, "RECOVERY_S", 0.1)
    record = await strike(ScriptedFault(never="recovered"), SCENE.rng)
    assert "worker-0 recovered: not within 0.1 s" in record.error
    assert record.recovered_s is None


def test_kinds_are_chosen_by_name_and_only_those_of_the_network_need_remote_hosts() -> None:
    assert chosen_kinds(None) == tuple(KINDS)
    assert chosen_kinds("kill-api,kill-worker") == ("kill-api", "kill-worker")
    for unknown in ("kill-worker,none", ""):
        with pytest.raises(SettingsError, match="--faults"):
            chosen_kinds(unknown)
    assert need_network(["kill-worker", "cut-network"])
    assert not need_network(["kill-worker", "kill-redis"])


def test_each_kind_comes_once_per_round_at_equal_distances_in_the_order_of_the_seed() -> None:
    kinds = ("a", "b", "c", "d", "e")
    plan, again, other = (
        plan_faults(kinds, each=2, total_s=WARM_UP_S + 100, seed=seed) for seed in (7, 7, 8)
    )
    assert [fault.at_s for fault in plan] == [WARM_UP_S + 10 * number for number in range(10)]
    for start in (0, 5):
        assert Counter(fault.kind for fault in plan[start : start + 5]) == Counter(kinds)
    assert plan == again != other
    assert plan_faults(kinds, each=0, total_s=60, seed=1) == []


# The program moves itself into a network namespace, so it is a process of its own.
PROGRAM = """
import asyncio, subprocess, sys, time
from ops.lab.chaos.network.own_namespace import enter_own_namespace
from ops.lab.chaos.network.relay import Rules
from ops.lab.chaos.network.remote_host import RemoteHost
from ops.lab.chaos.polling import until
from shared.errors import SettingsError

ECHO = '''
import socket, sys
connection, _ = socket.create_server((sys.argv[1], 9000)).accept()
while data := connection.recv(65536):
    connection.sendall(data)
'''

async def connected(address):
    try:
        return await asyncio.open_connection(address, 9000)
    except OSError:
        return None

async def main():
    host = RemoteHost(1)
    await host.start()
    echo = subprocess.Popen(host.command([sys.executable, "-c", ECHO, host.address]))
    try:
        reader, writer = await until(lambda: connected(host.address), "the server answers")

        async def transfer(size):
            start = time.monotonic()
            writer.write(bytes(size))
            await reader.readexactly(size)
            return time.monotonic() - start

        await transfer(300_000)
        whole = await host.apply(Rules(delay_s=0.1))
        assert (whole.dropped, whole.delayed) == (0, 0), whole
        assert whole.forwarded > 300, whole  # frames of at most 1,500 bytes in each direction
        assert await transfer(1) > 0.2
        await host.apply(Rules(delay_s=0.1, min_bytes=1000))
        assert await transfer(1) < 0.1
        assert await transfer(5000) > 0.2
        late = await host.apply(Rules(drop=0.3))
        assert late.delayed >= 2, late
        await transfer(300_000)
        lossy = await host.apply(Rules())
        assert lossy.dropped > 10, lossy
        assert await transfer(1) < 0.1
    finally:
        echo.kill()
        echo.wait()
        await host.stop()

try:
    enter_own_namespace()
except SettingsError as error:
    sys.exit(f"skip: {error}")
asyncio.run(main())
"""


@pytest.mark.slow
def test_frames_are_forwarded_delayed_and_dropped() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=100, check=False
    )
    if done.stderr.startswith("skip: "):
        pytest.skip(done.stderr)
    assert done.returncode == 0, done.stderr


STRUCK = ("lose-worker", "kill-api", "fill-redis")
SIZE = ("--streams", "12", "--adapters", "6", "--workers", "2", "--apis", "2", "--step-ms", "50")


@pytest.mark.long
@pytest.mark.timeout(300)
def test_a_run_of_half_a_minute_loses_nothing(tmp_path: Path) -> None:
    flags = ["--minutes", "0.5", "--each", "1", "--faults", ",".join(STRUCK)]
    command = [sys.executable, "-m", "ops.lab.chaos", *SIZE, *flags, "--report", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    report = orjson.loads((tmp_path / "chaos.json").read_bytes())
    assert report["failures"] == []
    assert [kind["took_place"] for kind in report["kinds"]] == [1, 1, 1]
    assert report["outcomes"]["answered"] > 20
    assert report["machine"]["commit"]
