"""Adapters in a bucket that a pool loads at their first requests, with a real S3 server."""

import asyncio
import time
from collections.abc import Iterator
from statistics import median

import httpx
import pytest
from adapter_traffic import LOAD, complete
from s3_server import BUCKET, S3Server, s3_server
from servers import Server, lorikeet_up

from shared.store.audit.auditor import Auditor
from shared.store.redis.connection import connect
from shared.store.redis.keys import Keys

NUM_ADAPTERS = 1000
NUM_ALONE = 20
"""Number of adapters whose first request comes alone, for comparison with explicit loads."""
NUM_CLIENTS = 4
"""Number of adapters that a front end looks up at once. More clients would measure the queue."""
FLAGS = ("--engine", "simulated", "base", "--adapter-source", f"s3://{BUCKET}/{{name}}")
MEMORY = ("--adapter-memory-mb", "1100")
SMALL_STEPS = ("--simulated-step-ms", "0", "--simulated-load-ms", "0")


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.env.items():
            patch.setenv(name, value)
        yield server


@pytest.fixture(scope="module")
def server(s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    with lorikeet_up(folder, *FLAGS, *SMALL_STEPS, *MEMORY) as server:
        yield server
        assert "Traceback" not in server.log_text()


def files(number: int) -> dict[str, bytes]:
    return {"adapter_config.json": b"{}", "adapter_model.safetensors": b"%d" % number * 100}


def put(s3: S3Server, names: dict[str, int]) -> None:
    s3.put({f"{n}/{f}": content for n, i in names.items() for f, content in files(i).items()})


@pytest.mark.slow
async def test_the_first_request_to_an_adapter_in_the_bucket_is_served(
    http: httpx.AsyncClient, s3: S3Server
) -> None:
    put(s3, {"team/sql": 1})
    reply = await complete(http, "team/sql", "x")
    assert reply.status_code == 200, reply.text
    version = reply.json()["weight_version"]
    assert version.startswith("team/sql@")
    shown = (await http.get("/v1/adapters/team/sql")).json()
    assert (shown["version"], shown["source"]) == (version, f"s3://{BUCKET}/team/sql")
    assert (await complete(http, "base:team/sql", "x")).json()["weight_version"] == version


@pytest.mark.slow
async def test_an_object_that_changed_is_refused_and_never_served(
    http: httpx.AsyncClient, s3: S3Server
) -> None:
    put(s3, {"changed": 4})
    assert (await complete(http, "changed", "x")).status_code == 200
    version = (await http.get("/v1/adapters/changed")).json()["version"]
    put(s3, {"changed": 5})
    reply = await complete(http, "changed", "x")
    assert reply.json()["weight_version"] == version  # in the worker's memory
    source = f"s3://{BUCKET}/changed"
    await http.post(LOAD, json={"lora_name": "copy", "lora_path": source})
    put(s3, {"changed": 6})  # before a worker has loaded it
    reply = await complete(http, "copy", "x")
    error = reply.json()["error"]
    assert (reply.status_code, error["code"]) == (503, "adapter_unavailable"), reply.text
    body = {"lora_name": "copy", "lora_path": source, "load_inplace": True}
    assert (await http.post(LOAD, json=body)).status_code == 200
    assert (await complete(http, "copy", "x")).status_code == 200


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_a_thousand_adapters_are_served_at_their_first_request(
    http: httpx.AsyncClient, s3: S3Server, server: Server
) -> None:
    put(s3, {f"one/{number}": number for number in range(NUM_ADAPTERS)})
    put(s3, {f"alone/{number}": number for number in range(NUM_ALONE)})
    loads, alone = [], []
    for number in range(NUM_ALONE):
        loads.append(await load_s(http, f"loaded-{number}", f"one/{number}"))
        began_s = time.monotonic()
        assert (await complete(http, f"alone/{number}", "x")).status_code == 200
        alone.append(time.monotonic() - began_s)
    assert median(alone) < 1.5 * median(loads)
    names = iter([f"one/{number}" for number in range(NUM_ADAPTERS)])
    took: dict[str, float] = {}

    async def client() -> None:
        for name in names:
            began_s = time.monotonic()
            reply = await complete(http, name, "x")
            took[name] = time.monotonic() - began_s
            assert reply.status_code == 200, reply.text
            assert reply.json()["weight_version"].startswith(f"{name}@")

    await asyncio.gather(*(client() for _ in range(NUM_CLIENTS)))
    assert len(took) == NUM_ADAPTERS
    # Clients share two cores with the pool and the S3 server.
    assert median(took.values()) < NUM_CLIENTS * median(loads) * 2
    before = s3.num_requests("one/")
    again = [(await complete(http, name, "x")).status_code for name in list(took)[::50]]
    assert set(again) == {200}
    assert s3.num_requests("one/") == before
    redis = connect(server.redis.url)
    assert (await Auditor(redis, Keys("main")).audit(settle_s=0)).strays == ()
    await redis.aclose()


async def load_s(http: httpx.AsyncClient, name: str, path: str) -> float:
    """Return the seconds of loading an adapter and of its first request."""
    began_s = time.monotonic()
    body = {"lora_name": name, "lora_path": f"s3://{BUCKET}/{path}"}
    assert (await http.post(LOAD, json=body)).status_code == 200
    assert (await complete(http, name, "x")).status_code == 200
    return time.monotonic() - began_s
