"""Every task and every arq function of a control process has a bound."""

from pathlib import Path

from arq.connections import ArqRedis
from arq.worker import Function
from pydantic import SecretStr

from ops.control.batches.assembly import batch_work
from ops.control.batches.webhook import Webhook
from ops.control.tasks import TASKS
from ops.lab.generate.bounds import WORK
from shared.settings import ControlSettings
from shared.store.redis.connection import Redis

SECRET = "whsec_" + "c2VjcmV0" * 4


async def test_each_task_and_each_function_has_a_bound(
    redis: Redis, redis_url: str, pool: str, tmp_path: Path
) -> None:
    settings = ControlSettings(
        redis_url=redis_url,
        pool=pool,
        file_store=str(tmp_path),
        webhook_url="http://127.0.0.1:1/hook",
        webhook_secret=SecretStr(SECRET),
    )
    async with batch_work(settings, Webhook.of(settings), ArqRedis(redis.connection_pool)) as work:
        tasks, functions = [*TASKS, *work.tasks], work.functions
    assert {task.name for task in tasks} | {each.name for each in functions} == set(WORK)
    assert all(task.timeout_s > 0 for task in tasks)
    assert all(_is_bounded(each) for each in functions)


def _is_bounded(function: Function) -> bool:
    return bool(function.timeout_s and function.max_tries)
