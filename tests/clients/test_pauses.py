"""Streams pause for 25 s after their first tokens, and arrive whole at all clients.

All clients read at once, each on every API that it speaks, so that they share the pauses.
"""

import asyncio
import itertools
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import pytest_asyncio
from queue_support import eventually
from replicated_pool import SimulatedWorkers, front_end, replicated_servers, simulated_workers
from simulated_stream import SimulatedStream

from ops.lab.chaos.cluster.replicated import Replicated
from ops.lab.chaos.load.sdks.in_process import AnthropicSdk, OpenaiSdk
from ops.lab.chaos.load.sdks.process import ProgramSdk, SdkProgram, node_sdks, start_node
from ops.lab.chaos.load.sdks.sdk import Api, Sdk

PAUSE_S = 25.0
STEP_MS = 100
NUM_TOKENS = 200
WARM_UP_TOKENS = 16
"""Least number of tokens that LiteLLM requests of a response."""
NUM_WORKERS = 2
START_S = 240.0
PATIENCE_S = 120.0
PROGRAMS = Path(__file__).with_name("streams")
WITHOUT_COMPLETIONS = frozenset(Api) - {Api.COMPLETIONS}
LIBRARIES = {
    "lang_chain": ("LangChain", frozenset(Api)),
    "lite_llm": ("LiteLLM", frozenset(Api)),
    "pydantic_agents": ("Pydantic AI", WITHOUT_COMPLETIONS),
}
"""Name of the library of each program in `streams`, and the APIs that it speaks."""
pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.asyncio(loop_scope="module"),
]


@dataclass
class Pool:
    """A pool and the clients that read from it."""

    servers: Replicated
    workers: SimulatedWorkers
    url: str
    sdks: list[Sdk]
    seeds: "itertools.count[int]" = field(default_factory=itertools.count)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def clients(
    run_client: Callable[..., str], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[list[Sdk]]:
    """All clients: those of this environment, of Node, and of the clients' environment."""
    log = tmp_path_factory.mktemp("clients") / "clients.log"
    openai, anthropic, node = OpenaiSdk(), AnthropicSdk(), await start_node(log)
    programs = {
        name: await SdkProgram.start(
            ["python", str(PROGRAMS / f"{name}.py")], log, LITELLM_LOCAL_MODEL_COST_MAP="True"
        )
        for name in LIBRARIES
    }
    others = [ProgramSdk(programs[name], *named) for name, named in LIBRARIES.items()]
    yield [openai, anthropic, *node_sdks(node), *others]
    for program in (node, *programs.values()):
        await program.close()
    await openai.close()
    await anthropic.close()
    sys.stdout.write(log.read_text())


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pool(clients: list[Sdk], tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pool]:
    """A pool whose master is replaced after `PAUSE_S`."""
    folder = tmp_path_factory.mktemp("pauses")
    settings = {"durability": "strict", "max_num_seqs": 32, "simulated_step_ms": STEP_MS}
    async with AsyncExitStack() as stack:
        servers = await stack.enter_async_context(
            replicated_servers(folder, down_after_ms=int(1000 * PAUSE_S))
        )
        workers = await stack.enter_async_context(
            simulated_workers(servers.url, NUM_WORKERS, **settings)
        )
        url = await stack.enter_async_context(front_end(folder, servers.url, "strict"))
        pool = Pool(servers, workers, url, clients)
        short = streams_of(pool, num_tokens=WARM_UP_TOKENS)
        # This takes until every program has imported its library.
        assert await asyncio.wait_for(follow_all(short), START_S) == {}
        assert problems_of(short) == {}
        yield pool


def streams_of(pool: Pool, *, num_tokens: int) -> list[SimulatedStream]:
    """Return a stream of each client and API."""
    return [
        SimulatedStream(sdk, api, pool.url, next(pool.seeds), num_tokens)
        for sdk in pool.sdks
        for api in sorted(sdk.apis)
    ]


async def follow_all(streams: Sequence[SimulatedStream]) -> dict[str, BaseException]:
    """Follow all streams to their ends, and return the errors of the clients."""
    ends = await asyncio.gather(*(each.follow() for each in streams), return_exceptions=True)
    named = zip((each.name for each in streams), ends, strict=True)
    return {name: end for name, end in named if isinstance(end, BaseException)}


def problems_of(streams: Sequence[SimulatedStream], *, pause_s: float = 0) -> dict[str, str]:
    """Return what is wrong with whole streams that had a pause."""
    found = {}
    for each in streams:
        if problem := each.problem():
            found[each.name] = problem
        elif each.finish not in ("length", None):  # LangChain's completions have none
            found[each.name] = f"finish reason {each.finish}"
        elif each.longest_s < pause_s:
            found[each.name] = f"the longest pause was {each.longest_s} s"
    return found


async def stop_redis(pool: Pool) -> None:
    """Suspend all Redis servers and Sentinels."""
    ports = (*pool.servers.sentinel_ports, *pool.servers.ports)
    for port in ports:
        pool.servers.signal(port, signal.SIGSTOP)
    await asyncio.sleep(PAUSE_S)
    for port in reversed(ports):
        pool.servers.signal(port, signal.SIGCONT)


async def kill_workers(pool: Pool) -> None:
    """Kill all workers, and start new ones later."""
    pool.workers.kill()
    await asyncio.sleep(PAUSE_S)
    await pool.workers.start()


async def fail_over(pool: Pool) -> None:
    """Kill the master, and wait until its replica is the master."""
    old = await pool.servers.master_port()
    pool.servers.kill(old)
    await pool.servers.promoted(old, within_s=2 * PAUSE_S)
    await pool.servers.restart(old)


@pytest.mark.parametrize(
    "pause",
    [
        pytest.param(stop_redis, marks=pytest.mark.slow),
        pytest.param(kill_workers, marks=pytest.mark.long),
        pytest.param(fail_over, marks=pytest.mark.long),
    ],
)
async def test_all_clients_get_the_whole_answer_after_a_pause(
    pool: Pool, pause: Callable[[Pool], Awaitable[None]]
) -> None:
    streams = streams_of(pool, num_tokens=NUM_TOKENS)

    async def all_have_begun() -> bool:
        return all(each.text for each in streams) or following.done()

    following = asyncio.create_task(follow_all(streams))
    await eventually(all_have_begun, within_s=PATIENCE_S)
    assert not following.done(), await following
    await pause(pool)
    assert await asyncio.wait_for(following, PATIENCE_S) == {}
    assert problems_of(streams, pause_s=PAUSE_S) == {}
