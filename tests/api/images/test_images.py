"""Images in chats of all three APIs: what jobs carry, and what is refused before it is queued."""

import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from typing import Any
from unittest.mock import AsyncMock

import httpx
import pytest
from api_support import BASE, ScriptedWorker, client_of, error_of
from image_files import BLUE, data_url, image_file, png_header
from threaded_server import LocalServer, QuietHandler, running

from api.app import create_app
from shared.protocol.capabilities import WITHOUT_IMAGES, Feature
from shared.protocol.images import MAX_IMAGES
from shared.protocol.jobs import Job
from shared.settings import ApiSettings
from shared.store.adapters.registry import Registry
from shared.store.jobs.queue import Queue
from shared.store.views.pool_views import PoolViews

MAX_BODY_BYTES = 200_000
CHAT, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/responses", "/v1/messages"
FILES = [image_file(), image_file("JPEG", (20, 30), BLUE)]


@pytest.fixture
def private_hosts() -> tuple[str, ...]:
    return ()


@pytest.fixture
async def direct(
    settings: ApiSettings, registry: Registry, private_hosts: tuple[str, ...]
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a front end whose base model reads images."""
    await registry.set_base(replace(BASE, takes_images=True))
    changed = {"max_body_bytes": MAX_BODY_BYTES, "image_private_hosts": private_hosts}
    async with client_of(create_app(settings.model_copy(update=changed))) as client:
        yield client


def chat_body(*urls: str) -> dict[str, Any]:
    images = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    content = [{"type": "text", "text": "before"}, *images, {"type": "text", "text": "after"}]
    return {"model": "extract", "messages": [{"role": "user", "content": content}]}


def response_body(*urls: str) -> dict[str, Any]:
    images = [{"type": "input_image", "image_url": url, "detail": "low"} for url in urls]
    text = [{"type": "input_text", "text": text} for text in ("before", "after")]
    content = [text[0], *images, text[1]]
    return {"model": "extract", "input": [{"role": "user", "content": content}]}


def message_body(*urls: str) -> dict[str, Any]:
    images = [{"type": "image", "source": source_of(url)} for url in urls]
    text = [{"type": "text", "text": text} for text in ("before", "after")]
    messages = [{"role": "user", "content": [text[0], *images, text[1]]}]
    return {"model": "extract", "max_tokens": 9, "system": "short", "messages": messages}


def source_of(url: str) -> dict[str, str]:
    if not url.startswith("data:"):
        return {"type": "url", "url": url}
    media_type, _, data = url.removeprefix("data:").partition(";base64,")
    return {"type": "base64", "media_type": media_type, "data": data}


BODIES: dict[str, Callable[..., dict[str, Any]]] = {
    CHAT: chat_body,
    RESPONSES: response_body,
    MESSAGES: message_body,
}
paths = pytest.mark.parametrize("path", BODIES)


async def queued(client: httpx.AsyncClient, path: str, body: dict[str, Any], queue: Queue) -> Job:
    """Return the job of a request that runs in the background."""
    worker = await ScriptedWorker.start(queue)
    reply = await client.post(path, json={**body, "background": True})
    assert reply.is_success, reply.text
    return (await worker.take()).job


def check_job(job: Job, files: list[bytes]) -> None:
    places = [{"type": "image"}] * len(files)
    before, after = ({"type": "text", "text": text} for text in ("before", "after"))
    assert job.messages is not None
    assert job.messages[-1] == {"role": "user", "content": [before, *places, after]}
    assert list(job.images) == [data_url(file).partition(",")[2] for file in files]
    assert job.features == {Feature.IMAGES}


@paths
async def test_a_job_carries_the_images_and_their_places(
    direct: httpx.AsyncClient, queue: Queue, path: str
) -> None:
    body = BODIES[path](*(data_url(file) for file in FILES))
    check_job(await queued(direct, path, body, queue), FILES)


async def test_an_image_may_be_the_result_of_a_tool(
    direct: httpx.AsyncClient, queue: Queue
) -> None:
    call = {"type": "tool_use", "id": "c", "name": "look", "input": {}}
    image = {"type": "image", "source": source_of(data_url(FILES[0]))}
    result = {"type": "tool_result", "tool_use_id": "c", "content": [image]}
    body = message_body()
    body["messages"] += [
        {"role": "assistant", "content": [call]},
        {"role": "user", "content": [result]},
    ]
    job = await queued(direct, MESSAGES, body, queue)
    assert job.messages is not None
    assert job.messages[-1]["content"] == [{"type": "image"}]


async def test_images_count_as_tokens_before_the_worker_counts_them(
    direct: httpx.AsyncClient, queue: Queue
) -> None:
    text = await queued(direct, CHAT, chat_body(), queue)
    image = await queued(direct, CHAT, chat_body(data_url(image_file(size=(280, 280)))), queue)
    assert image.cost - text.cost == 101


HUGE = "http://example.com/" + "a" * 5000
BAD = {
    "no scheme": ("cat.png", "http or https URL"),
    "ftp": ("ftp://example.com/cat.png", "http or https URL"),
    "a file": ("file:///etc/passwd", "http or https URL"),
    "an empty URL": ("", "http or https URL"),
    "no base64": ("data:image/png,abc", "http or https URL"),
    "another type": (data_url(FILES[0], "text/plain"), "http or https URL"),
    "broken base64": ("data:image/png;base64,aGk", "isn't valid base64"),
    "a line break": ("data:image/png;base64,aGlo\naGlo", "isn't valid base64"),
    "characters beyond ASCII": ("data:image/png;base64,äöü=", "isn't valid base64"),
    "no data": ("data:image/png;base64,", "isn't a complete image"),
    "text": (data_url(b"an image"), "isn't a complete image"),
    "SVG": (data_url(b"<svg xmlns='http://www.w3.org/2000/svg'/>"), "isn't a complete image"),
    "BMP": (data_url(image_file("BMP")), "isn't a complete image"),
    "TIFF": (data_url(image_file("TIFF")), "isn't a complete image"),
    "a truncated PNG": (data_url(FILES[0][:20]), "image 2"),
    "a truncated JPEG": (data_url(FILES[1][:20]), "image 2"),
    "a truncated WebP": (data_url(image_file("WEBP")[:20]), "image 2"),
    "a bomb": (data_url(png_header(16_000, 16_000)), "pixels"),
    "a larger bomb": (data_url(png_header(100_000, 100_000)), "pixels"),
    "too wide": (data_url(png_header(20_000, 10)), "has 20000 x 10 pixels"),
    "no width": (data_url(png_header(0, 10)), "image 2"),
    "this machine": ("http://127.0.0.1:1/cat.png", "isn't public"),
    "this machine in IPv6": ("http://[::1]/cat.png", "isn't public"),
    "this machine by name": ("http://localhost/cat.png", "isn't public"),
    "a private network": ("https://10.1.2.3/cat.png", "isn't public"),
    "metadata of a cloud": ("http://169.254.169.254/latest/meta-data", "isn't public"),
    "a password": ("http://me:secret@example.com/cat.png", "user name or password"),
    "a service of a cloud": ("http://168.63.129.16/", "isn't public"),
    "another service of a cloud": ("http://192.0.0.192/opc", "isn't public"),
    "a site's address": ("http://[fec0::1]/cat.png", "isn't public"),
    "a long URL": (HUGE, "printable ASCII"),
    "a URL beyond ASCII": ("http://example.com/käfer.png", "printable ASCII"),
}


@paths
@pytest.mark.parametrize("name", BAD)
async def test_a_bad_image_is_a_400_after_at_most_a_second_of_cpu_time(
    direct: httpx.AsyncClient, views: PoolViews, path: str, name: str
) -> None:
    url, reason = BAD[name]
    started_s = time.process_time()
    reply = await direct.post(path, json=BODIES[path](data_url(FILES[0]), url))
    assert time.process_time() - started_s < 1
    assert reply.status_code == 400
    message = reply.json()["error"]["message"]
    assert reason in message
    field = "input" if path == RESPONSES else "messages"
    assert message.startswith(f"{field}[0].content[2]")
    assert (await views.counts()).waiting == 0


@paths
async def test_a_request_has_a_bounded_number_of_images(
    direct: httpx.AsyncClient, path: str
) -> None:
    for url in (data_url(FILES[0]), "http://127.0.0.1/cat.png"):
        reply = await direct.post(path, json=BODIES[path](*[url] * (MAX_IMAGES + 1)))
        assert reply.status_code == 400
        assert f"at most {MAX_IMAGES} images" in reply.text


async def test_all_images_of_a_request_have_a_bounded_number_of_pixels(
    direct: httpx.AsyncClient,
) -> None:
    large = data_url(png_header(8000, 7000))
    assert error_of(await direct.post(CHAT, json=chat_body(large, large))) == (
        *(400, "invalid_value"),
        "messages[0].content[2].image_url.url",
    )


async def test_the_images_of_all_answers_have_bounds(direct: httpx.AsyncClient) -> None:
    for size, num_images, num_answers in ((8, 6, 3), (4000, 1, 5)):
        image = data_url(png_header(size, size))
        body = {**chat_body(*[image] * num_images), "n": num_answers}
        reply = await direct.post(CHAT, json=body)
        assert error_of(reply) == (400, "invalid_value", "n")
        assert f"{num_answers} answers to {num_images * num_answers} images" in reply.text


async def test_a_prompt_with_images_is_not_truncated(direct: httpx.AsyncClient) -> None:
    body = {**chat_body(data_url(FILES[0])), "truncate_prompt_tokens": 5}
    assert error_of(await direct.post(CHAT, json=body))[2] == "truncate_prompt_tokens"


@paths
async def test_a_model_for_text_alone_refuses_images_and_fetches_none(
    direct: httpx.AsyncClient, registry: Registry, path: str
) -> None:
    await registry.set_base(BASE)
    for url in (data_url(FILES[0]), "http://127.0.0.1:1/cat.png"):
        reply = await direct.post(path, json=BODIES[path](url))
        assert reply.status_code == 400
        assert "reads no images" in reply.text
        assert "--engine vllm" in reply.text


@paths
async def test_images_without_a_worker_that_serves_them_are_a_400(
    direct: httpx.AsyncClient, queue: Queue, path: str
) -> None:
    await ScriptedWorker.start(queue, WITHOUT_IMAGES)
    reply = await direct.post(path, json=BODIES[path](data_url(FILES[0])))
    assert reply.status_code == 400
    assert "no live worker of this pool serves images: start one with --engine vllm" in reply.text


COUNTS = {
    "/tokenize": chat_body,
    "/v1/responses/input_tokens": response_body,
    "/v1/messages/count_tokens": message_body,
}


@pytest.mark.parametrize("path", COUNTS)
async def test_tokens_of_images_are_counted_only_by_a_worker_that_serves_them(
    direct: httpx.AsyncClient, queue: Queue, path: str
) -> None:
    await ScriptedWorker.start(queue, WITHOUT_IMAGES)
    reply = await direct.post(path, json=COUNTS[path](data_url(FILES[0])))
    assert reply.status_code == 400
    assert "--engine vllm" in reply.text


class TestRemoteImages:
    """Images at URLs. The server of the test has a private address, which the setting allows."""

    @pytest.fixture
    def private_hosts(self) -> tuple[str, ...]:
        return ("127.0.0.1",)

    @pytest.fixture
    def served(self) -> Counter[str]:
        """Count requests to the server, by path."""
        return Counter()

    @pytest.fixture
    def images(self, served: Counter[str]) -> Iterator[str]:
        """Serve images, and return the URL of the server."""

        class Handler(QuietHandler):
            def do_GET(self) -> None:
                served[self.path] += 1
                if self.path.startswith("/redirect"):
                    self.send_response(302)
                    self.send_header("Location", self.path.partition("?")[2])
                    self.end_headers()
                elif self.path == "/large":
                    self.reply(200, b"x" * MAX_BODY_BYTES)
                elif self.path.strip("/").isdecimal():
                    self.reply(200, FILES[int(self.path.strip("/"))])
                else:
                    self.reply(403 if self.path == "/denied" else 404)

        with running(LocalServer(Handler)) as server:
            yield server.url

    @paths
    async def test_they_become_part_of_the_job(
        self, direct: httpx.AsyncClient, queue: Queue, images: str, path: str
    ) -> None:
        body = BODIES[path](f"{images}/0", f"{images}/redirect?/1")
        check_job(await queued(direct, path, body, queue), FILES)

    @paths
    async def test_a_repeated_request_fetches_nothing_and_has_the_first_ones_job(
        self,
        direct: httpx.AsyncClient,
        queue: Queue,
        images: str,
        served: Counter[str],
        path: str,
    ) -> None:
        worker = await ScriptedWorker.start(queue)
        body = {**BODIES[path](f"{images}/0"), "background": True}
        headers = {"Idempotency-Key": "one"}
        first = await direct.post(path, json=body, headers=headers)
        assert len((await worker.take()).job.images) == 1
        served.clear()
        second = await direct.post(path, json=body, headers=headers)
        assert first.json()["id"] == second.json()["id"]
        assert served == {}
        other = {**BODIES[path](f"{images}/1"), "background": True}
        assert (await direct.post(path, json=other, headers=headers)).status_code == 409

    async def test_a_request_whose_earlier_job_has_expired_meanwhile_is_not_answered_without_images(
        self, direct: httpx.AsyncClient, queue: Queue, images: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await ScriptedWorker.start(queue)
        # The key expires between this look-up and the enqueueing.
        monkeypatch.setattr(Queue, "have_jobs", AsyncMock(return_value=[True]))
        body = {**chat_body(f"{images}/0"), "background": True}
        reply = await direct.post(CHAT, json=body, headers={"Idempotency-Key": "one"})
        assert reply.status_code == 503
        assert "has just expired; try again" in reply.text

    async def test_a_base_model_without_a_name_counts_tokens_of_remote_images(
        self, direct: httpx.AsyncClient, queue: Queue, images: str, served: Counter[str]
    ) -> None:
        await ScriptedWorker.start(queue, WITHOUT_IMAGES)
        body = chat_body(f"{images}/0")
        del body["model"]
        reply = await direct.post("/tokenize", json=body)
        assert "no live worker of this pool serves images" in reply.text
        assert served == {"/0": 1}

    @paths
    @pytest.mark.parametrize(
        ("name", "reason"),
        [
            ("missing", "status 404"),
            ("denied", "status 403"),
            ("large", "than the server's --max-body-bytes allows"),
            ("redirect?http://10.0.0.1/0", "isn't public; the server's --image-private-host"),
            ("redirect?s3://bucket/0", "it isn't an https or http URL"),
            ("redirect?/redirect", "redirects"),
        ],
    )
    async def test_what_cannot_be_fetched_is_a_400_that_names_the_field(
        self, direct: httpx.AsyncClient, images: str, path: str, name: str, reason: str
    ) -> None:
        reply = await direct.post(path, json=BODIES[path](f"{images}/0", f"{images}/{name}"))
        assert reply.status_code == 400
        message = reply.json()["error"]["message"]
        assert reason in message
        assert "[0].content[2]" in message
        assert "10.0.0.1" not in message
