"""Measures the CPU time that an API process needs for each streamed token of chats.

Two API processes, one of this checkout and one of another, serve the same pool with a simulated
engine.
"""

import asyncio
from contextlib import ExitStack

from ops.lab.bench.frame.rounds import Figures, Measure, Sizes, measure_rounds, rounds_finding
from ops.lab.bench.frame.run import Baseline, Quick, Rounds, scratch_folder, show, sizes_of
from ops.lab.bench.servers.checkouts import LORIKEET, checked, environment_of
from ops.lab.bench.servers.simulated_pool import BASE, ApiProcess, api_process
from ops.lab.bench.streams.http_client import HttpClient
from ops.lab.bench.streams.stream_load import StreamLoad, chat_body_of
from ops.lab.bench.streams.window import measure_window
from ops.lab.machine import ROOT
from ops.lab.options import RESULTS, ResultsFolder
from ops.lab.server_processes import process
from ops.local.embedded_redis import start_redis

POOL = "main"
PATH = "/v1/chat/completions"
STEP_MS = 30
WARM_UP_S = 2.0
WINDOW_S = 8.0
QUICK_S = 0.5


def api_cpu(
    baseline: Baseline = None,
    rounds: Rounds = None,
    quick: Quick = False,
    results: ResultsFolder = RESULTS,
) -> None:
    """Measure the CPU time of the API process for each streamed token of chats."""
    sizes = sizes_of(Sizes(rounds=8, words=64), rounds, quick=quick)
    with scratch_folder() as scratch, ExitStack() as stack:
        redis = start_redis(None)
        stack.callback(redis.stop)
        size = ("--simulated-step-ms", str(STEP_MS), "--max-num-seqs", str(sizes.clients))
        pool = ("--redis-url", redis.url, "--pool", POOL, "--log-level", "warning")
        worker = [*LORIKEET, "worker", "--engine", "simulated", BASE, *size, *pool]
        stack.enter_context(process("worker", worker, scratch, environment_of(ROOT)))
        checkouts = {"now": ROOT} | ({"before": checked(baseline)} if baseline else {})
        variants: dict[str, Measure] = {}
        for name, checkout in checkouts.items():
            api = stack.enter_context(api_process(redis.url, POOL, scratch, checkout=checkout))
            variants[name] = _measure_of(api, sizes, QUICK_S if quick else WINDOW_S)
        found = measure_rounds(variants, sizes.rounds)
    show(rounds_finding("api-cpu", found, sizes, [("now", "before")]), "simulated", results)


def _measure_of(api: ApiProcess, sizes: Sizes, window_s: float) -> Measure:
    return lambda _: asyncio.run(_us_per_token(api, sizes, window_s))


async def _us_per_token(api: ApiProcess, sizes: Sizes, window_s: float) -> Figures:
    client = HttpClient(api.port, path=PATH)
    load = StreamLoad(client.send, [BASE], sizes.words, body_of=chat_body_of)
    window = await measure_window(
        load,
        {"api": [api.pid]},
        streams=sizes.clients,
        warm_up_s=min(WARM_UP_S, window_s),
        window_s=window_s,
    )
    await client.close()
    label = f"chat, {sizes.clients} clients, us of the API process per token"
    return {label: 1e6 * window.cpu_s["api"] / window.tokens}
