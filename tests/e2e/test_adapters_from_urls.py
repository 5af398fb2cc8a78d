"""Adapters at URLs that two workers on two machines serve exactly."""

import asyncio
import hashlib
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from adapter_traffic import LOAD, NUM_TOKENS, PROMPTS, Folders, complete
from archives import FORMATS, Member, archive
from peft import PeftModel
from reference import greedy
from s3_server import BUCKET, S3Server, s3_server
from served_tiny import TinyModels
from servers import Server, lorikeet_up, lorikeet_worker
from tiny import tiny_model
from web_server import WebServer, response, sends, web_server

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    return Folders.save(tmp_path_factory.mktemp("adapters"))


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.env.items():
            patch.setenv(name, value)
        yield server


@pytest.fixture(scope="module")
def web() -> Iterator[WebServer]:
    with web_server() as server:
        yield server


@pytest.fixture(scope="module")
def flags(models: TinyModels, web: WebServer, s3: S3Server) -> list[str]:
    hosts = "--adapter-root", f"http://localhost:{web.port}", "--adapter-private-host", "localhost"
    template = "--adapter-source", f"s3://{BUCKET}/{{name}}.tar.gz"
    return [*models.flags, "--adapter-root", f"s3://{BUCKET}", *hosts, *template]


@pytest.fixture(scope="module")
def server(flags: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    store = "--adapter-store", str(tmp_path_factory.mktemp("store"))
    with lorikeet_up(tmp_path_factory.mktemp("server"), *flags, *store) as server:
        yield server
        assert "Traceback" not in server.log_text()


@pytest.fixture
async def http(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=server.url, timeout=120) as client:
        yield client


def packed(folder: Path, format_: str) -> bytes:
    members = [Member(file.name, file.read_bytes()) for file in folder.iterdir()]
    return archive(format_, members)


def expected(folder: Path, models: TinyModels) -> str:
    reference = PeftModel.from_pretrained(tiny_model(), str(folder)).eval()
    return models.text(greedy(reference, models.text_ids(PROMPTS[0]), NUM_TOKENS))


async def loaded(http: httpx.AsyncClient, name: str, source: str) -> str:
    """Load an adapter, and return the text of its first answer."""
    reply = await http.post(LOAD, json={"lora_name": name, "lora_path": source})
    assert reply.status_code == 200, reply.text
    text: str = (await complete(http, name, PROMPTS[0])).json()["choices"][0]["text"]
    return text


async def test_archives_and_folders_answer_as_peft_does(
    http: httpx.AsyncClient, folders: Folders, models: TinyModels, s3: S3Server, web: WebServer
) -> None:
    folder = folders.root / "a"
    text = expected(folder, models)
    s3.put_folder(folder, "folder/a")
    versions = set()
    for number, format_ in enumerate(FORMATS):
        body = packed(folder, format_)
        web.scripts[f"/{number}"] = sends(response(body))
        digest = hashlib.sha256(body).hexdigest()
        url = f"http://localhost:{web.port}/{number}#sha256={digest}"
        assert text.startswith(await loaded(http, f"web-{number}", url))
        shown = (await http.get(f"/v1/adapters/web-{number}")).json()
        versions.add(shown["version"].partition("@")[2])
    assert text.startswith(await loaded(http, "of-folder", f"s3://{BUCKET}/folder/a"))
    shown = (await http.get("/v1/adapters/of-folder")).json()
    assert versions == {shown["version"].partition("@")[2]}


async def test_a_worker_on_another_machine_fetches_the_same_version(
    http: httpx.AsyncClient,
    server: Server,
    folders: Folders,
    models: TinyModels,
    s3: S3Server,
    flags: list[str],
    tmp_path: Path,
) -> None:
    s3.put({"team/moved.tar.gz": packed(folders.root / "b", "tar.gz")})
    first = (await complete(http, "team/moved", PROMPTS[0])).json()
    assert expected(folders.root / "b", models).startswith(first["choices"][0]["text"])
    children = psutil.Process(server.process.pid).children()
    workers = [child.pid for child in children if "worker" in child.cmdline()]
    with lorikeet_worker(server, tmp_path, *flags, "--adapter-store", str(tmp_path / "other")):
        for pid in workers:
            os.kill(pid, signal.SIGSTOP)
        try:
            reply = (await complete(http, "team/moved", PROMPTS[0])).json()
        finally:
            for pid in workers:
                os.kill(pid, signal.SIGCONT)
        assert reply["weight_version"] == first["weight_version"]
        assert reply["choices"][0]["text"] == first["choices"][0]["text"]
        found = await asyncio.to_thread(list, (tmp_path / "other").glob("main/*/.version"))
        assert [path.read_text() for path in found] == [first["weight_version"]]


async def test_adapters_of_the_settings_may_be_at_urls(
    folders: Folders,
    models: TinyModels,
    s3: S3Server,
    tmp_path: Path,
) -> None:
    s3.put_folder(folders.root / "a", "start/a")
    more = "--adapters", f"start=s3://{BUCKET}/start/a", "--adapter-store", str(tmp_path / "store")
    with lorikeet_up(tmp_path, *models.flags, *more) as own:
        async with httpx.AsyncClient(base_url=own.url, timeout=120) as http:
            reply = (await complete(http, "start", PROMPTS[0])).json()
            text = reply["choices"][0]["text"]
            assert expected(folders.root / "a", models).startswith(text)
            other = await http.post(
                LOAD, json={"lora_name": "x", "lora_path": f"s3://{BUCKET}/start/b"}
            )
            assert other.status_code == 403
