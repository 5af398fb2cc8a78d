"""Sends calls for tokenization to a pool's workers, and their replies to the front ends.

All workers take calls from one list, so the next free worker takes the next call. Calls with images
have a list of their own, for the workers that serve images.
"""

from typing import Any

from shared.protocol.ids import CallId
from shared.protocol.tokenization import (
    Call,
    EncodeChat,
    Reply,
    decode_reply,
    encode_call,
    encode_reply,
)
from shared.store.redis.pool_store import PoolStore

TTL_MS = 30_000
"""Milliseconds after which a reply expires, and after which the list of calls expires if no call is
added."""


class Tokenizations(PoolStore):
    """Sends, takes and answers the calls of one pool."""

    async def send(self, call_id: CallId, call: Call) -> None:
        """Add a call to the end of the list. If no reply arrives, the call can be sent again."""
        await self._push(self._list_for(call), encode_call(call_id, call))

    async def withdraw(self, call_id: CallId, call: Call) -> None:
        """Remove a call from the list if no worker has taken it."""
        sent: Any = encode_call(call_id, call)
        await self._redis.lrem(self._list_for(call), 1, sent)  # type: ignore[misc]

    async def next_reply(self, call_id: CallId, *, timeout_s: float) -> Reply | None:
        """Return the reply to a call, or None if it doesn't arrive in time.

        The call waits for `timeout_s`, but at most two seconds.
        """
        reply = await self._take_first(self._keys.reply(call_id), timeout_s)
        return decode_reply(reply) if reply else None

    async def take(self, *, timeout_s: float, with_images: bool = True) -> bytes | None:
        """Take and return the oldest call, or None if none arrives in time.

        Calls with images are taken only if `with_images`. Waits for `timeout_s`, but at most two
        seconds. If the method fails, a call may be lost.
        """
        more = [self._keys.image_calls] if with_images else []
        return await self._take_first(self._keys.calls, timeout_s, *more)

    async def answer(self, call_id: CallId, reply: Reply) -> None:
        """Publish the reply to a call."""
        await self._push(self._keys.reply(call_id), encode_reply(reply))

    def _list_for(self, call: Call) -> str:
        has_images = isinstance(call, EncodeChat) and bool(call.job.images)
        return self._keys.image_calls if has_images else self._keys.calls

    async def _push(self, key: str, item: bytes) -> None:
        async with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.rpush(key, item)
            pipeline.pexpire(key, TTL_MS)
            await pipeline.execute()
