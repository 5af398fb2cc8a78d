"""Fetching images: slots, time limits and clients that leave."""

import asyncio
from collections.abc import Iterator
from queue import Queue
from threading import Event

import pytest
from image_files import data_url, image_file
from threaded_server import LocalServer, QuietHandler, running

from api.images import fetcher
from api.images.fetcher import MAX_FETCHES_OF_TENANT, ImageFetcher
from api.images.urls import UrlPlace
from shared.errors import JobFailed, RateLimited

FILE = image_file()


@pytest.fixture
def may_answer() -> Event:
    return Event()


@pytest.fixture
def asked() -> "Queue[str]":
    """Return the paths that the server is asked for."""
    return Queue()


@pytest.fixture
def place(may_answer: Event, asked: "Queue[str]") -> Iterator[UrlPlace]:
    """Serve an image after `may_answer` is set, and return its URL's place."""

    class Handler(QuietHandler):
        def do_GET(self) -> None:
            asked.put(self.path)
            may_answer.wait(30)
            self.reply(200, FILE)

    with running(LocalServer(Handler)) as server:
        yield UrlPlace(("messages", 0, "content", 0, "image_url", "url"), f"{server.url}/a//b%2Fc/")
        may_answer.set()


@pytest.fixture
def images() -> ImageFetcher:
    return ImageFetcher(["127.0.0.1"], max_body_bytes=100_000)


async def test_a_fetch_whose_client_left_holds_its_slot_until_its_thread_ends(
    images: ImageFetcher,
    place: UrlPlace,
    asked: "Queue[str]",
    may_answer: Event,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fetcher, "WAIT_S", 0.1)
    tasks = [
        asyncio.create_task(images.data_urls("red", [place])) for _ in range(MAX_FETCHES_OF_TENANT)
    ]
    await asyncio.to_thread(lambda: [asked.get(timeout=30) for _ in tasks])
    with pytest.raises(RateLimited):
        await images.data_urls("red", [place])
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    with pytest.raises(RateLimited):
        await images.data_urls("red", [place])
    may_answer.set()
    assert await images.data_urls("blue", [place]) == [data_url(FILE, "image/any")]
    monkeypatch.setattr(fetcher, "WAIT_S", 20)
    assert await images.data_urls("red", [place]) == [data_url(FILE, "image/any")]


async def test_a_source_that_does_not_answer_is_refused_in_time(
    images: ImageFetcher, place: UrlPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetcher, "FETCH_S", 0.2)
    with pytest.raises(JobFailed, match=r"messages\[0\]\.content\[0\]\.image_url\.url: .* longer"):
        await images.data_urls("red", [place])


async def test_a_name_that_takes_long_to_resolve_is_refused_in_time(
    place: UrlPlace, may_answer: Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetcher, "FETCH_S", 0.1)
    monkeypatch.setattr(fetcher, "RESOLVE_S", 0.1)
    images = ImageFetcher([], max_body_bytes=100_000)
    monkeypatch.setattr(images._addresses, "_resolve", lambda *_: may_answer.wait(30) and [])
    with pytest.raises(JobFailed, match=r"content\[0\].* takes more than 0\.1 s"):
        await images.data_urls("red", [place])
    may_answer.set()
