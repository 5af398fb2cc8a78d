"""`lorikeet chat` and the versions of an adapter, against a real front end."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import pytest
from api_support import ADAPTER, BASE, ScriptedWorker, register_models
from queue_support import make_adapter
from structlog.testing import capture_logs

from shared.protocol.access.rights import Access, KeyLimits, Scope
from shared.protocol.ids import AdapterVersion
from shared.store.access.key_store import KeyStore
from shared.store.adapters.candidates import CandidateMode, Candidates
from shared.store.adapters.registry import Registry
from shared.store.jobs.queue import Queue
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys

Run = Callable[..., Awaitable[str]]
NEXT = make_adapter("extract@222222222222", digest="3" * 64, weights_digest="4" * 64)
NOTE, NEXT_NOTE = (f"(answered by {adapter.version})" for adapter in (ADAPTER, NEXT))


@pytest.fixture
async def registry(redis: Redis, keys: Keys) -> Registry:
    """Registry with the base model and version 1 of `extract`."""
    registry = Registry(redis, keys)
    await register_models(registry)
    return registry


@pytest.fixture
async def canary(registry: Registry, redis: Redis, keys: Keys) -> None:
    """Let version 2 of `extract` answer all requests, as a candidate."""
    await registry.add_candidate(NEXT, keep_versions=4, by="")
    candidates = Candidates(redis, keys)
    await candidates.set("extract", None, mode=CandidateMode.CANARY, percent=100, by="")


class Chat:
    """Runs the chat, and answers its requests with the name of the version."""

    def __init__(self, run: Run, worker: ScriptedWorker) -> None:
        self._run = run
        self._worker = worker
        self.answered: list[AdapterVersion] = []

    async def __call__(self, *words: str, typed: Sequence[str], answers: int) -> str:
        text = "".join(f"{line}\n" for line in typed)
        shown = asyncio.ensure_future(self._run("chat", *words, input=text))
        for _ in range(answers):
            await self.answer()
        return await shown

    async def answer(self, replace: Callable[[], Awaitable[object]] | None = None) -> None:
        """Answer one request. `replace` is called before the chat can send the next one."""
        job = await self._worker.take()
        self.answered.append(job.job.version)
        if replace is not None:
            await replace()
        await self._worker.answer(job)


@pytest.fixture
async def chat(registry: Registry, queue: Queue, on_front_end: Run) -> AsyncIterator[Chat]:
    versions = (BASE.version, ADAPTER.version, NEXT.version)
    with capture_logs():  # the front end would write its log between the lines of the chat
        yield Chat(on_front_end, await ScriptedWorker.start(queue, residents=versions))


@pytest.mark.parametrize(
    ("words", "typed"),
    [
        ((ADAPTER.version, "--compare", NEXT.version), ()),
        (("extract",), (f"/compare {ADAPTER.version} {NEXT.version}",)),
        ((ADAPTER.version,), (f"/compare {NEXT.version}",)),
    ],
)
async def test_versions_can_be_compared(
    chat: Chat, registry: Registry, words: Sequence[str], typed: Sequence[str]
) -> None:
    await registry.load_adapter(NEXT, replace=True)
    shown = await chat(*words, typed=[*typed, "hi"], answers=2)
    assert f"{ADAPTER.version} and {NEXT.version}" in shown
    assert set(chat.answered) == {ADAPTER.version, NEXT.version}
    assert "answered by" not in shown, "the names have the versions"


async def test_a_previous_version_can_be_chosen(chat: Chat, registry: Registry) -> None:
    await registry.load_adapter(NEXT, replace=True)
    shown = await chat(typed=[f"/model {ADAPTER.version}", "hi"], answers=1)
    assert f"{ADAPTER.version}> hello\n" in shown
    assert chat.answered == [ADAPTER.version]


async def test_the_error_for_an_unknown_version_names_it(chat: Chat) -> None:
    shown = await chat("extract@333333333333", typed=["hi", "/model extract", "hi"], answers=1)
    assert "The model 'extract@333333333333' does not exist" in shown
    assert chat.answered == [ADAPTER.version]


async def test_the_answers_of_a_model_with_a_candidate_have_their_version(
    chat: Chat, canary: None
) -> None:
    shown = await chat(
        "extract", typed=["hi", "so?", f"/compare {ADAPTER.version}", "hi"], answers=4
    )
    assert f"\nextract> hello\n{NEXT_NOTE}\nextract> hello\n{NEXT_NOTE}\n" in f"\n{shown}"
    assert shown.count(NEXT_NOTE) == 3
    assert NOTE not in shown


async def test_the_version_is_shown_when_it_changes(chat: Chat, registry: Registry) -> None:
    chatting = asyncio.create_task(chat("extract", typed=["1", "2", "3"], answers=0))
    await chat.answer(lambda: registry.load_adapter(NEXT, replace=True))
    await chat.answer()
    await chat.answer()
    shown = await chatting
    assert chat.answered == [ADAPTER.version, NEXT.version, NEXT.version]
    expected = f"extract> hello\nextract> hello\n{NEXT_NOTE}\nextract> hello\nextract> \n"
    assert shown.endswith(expected)


async def test_a_change_is_noticed_after_another_model_was_chosen(
    chat: Chat, registry: Registry
) -> None:
    typed = ["1", "/model tiny/base", "2", "/model extract", "3"]
    chatting = asyncio.create_task(chat("extract", typed=typed, answers=0))
    await chat.answer()
    await chat.answer(lambda: registry.load_adapter(NEXT, replace=True))
    await chat.answer()
    assert (await chatting).endswith(f"extract> hello\n{NEXT_NOTE}\nextract> \n")


async def test_a_key_that_may_not_read_adapters_shows_no_candidate(
    chat: Chat, canary: None, store: KeyStore
) -> None:
    access = Access(tenant="red", scopes=frozenset({Scope.INFERENCE}))
    _, secret = await store.create(access, KeyLimits())
    shown = await chat("extract", "--api-key", secret, typed=["hi"], answers=1)
    assert shown.endswith("extract> hello\nextract> \n")
