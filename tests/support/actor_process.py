"""Worker process without an engine. It claims one job and publishes its tokens until it is stopped.

Usage: actor_process.py URL POOL NAME LEASE_MS. Prints one line per step: `claimed <id>`, then
`lost` and `finish <outcome>` if it was given up.
"""

import asyncio
import sys

from queue_support import API, INFO, Actor, tokens

from shared.errors import LeaseLost
from shared.protocol.jobs import ClaimedJob
from shared.store.jobs.queue import Queue
from shared.store.redis.connection import connect
from shared.store.redis.keys import Keys


async def main(url: str, pool: str, name: str, lease_ms: int) -> None:
    redis, keys = connect(url), Keys(pool)
    queue = Queue(redis, keys)
    actor = await Actor(queue, redis, keys, name, ["a@1"]).register(lease_ms=lease_ms)
    while not (claimed := await actor.claim(sequences=1)):
        await queue.wait(actor.id, timeout_s=0.05)
    say(f"claimed {claimed[0].job.id}")
    try:
        await publish_tokens(actor, claimed[0], lease_ms)
    except LeaseLost:
        say("lost")
        say(f"finish {await actor.finish(claimed[0])}")
    await redis.aclose()


async def publish_tokens(actor: Actor, claimed: ClaimedJob, lease_ms: int) -> None:
    """Publish a token per 5 ms, a checkpoint per 4 tokens, a heartbeat per third of the lease."""
    unsaved: list[int] = []
    for index in range(10**6):
        piece = tokens(claimed.job, index, [index], f"{index} ", try_=claimed.try_)
        unsaved.append(index)
        kept = ()
        if len(unsaved) == 4:
            text = "".join(f"{i} " for i in unsaved)
            kept = (tokens(claimed.job, unsaved[0], unsaved, text, try_=claimed.try_),)
            unsaved = []
        await actor.queue.publish(actor.id, {API: [piece]}, kept)
        if index % max(1, lease_ms // 15) == 0:
            await actor.queue.beat(actor.id, lease_ms=lease_ms, info=INFO)
        await asyncio.sleep(0.005)


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))
