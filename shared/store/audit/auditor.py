"""Audit of a pool's keys: each must be of a known kind and have an owner or a lifetime.

An audit reads keys one after another while the pool changes them. A key that looks wrong is
therefore only a suspect. A suspect becomes a stray if it still looks wrong later.
"""

import asyncio
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shared.errors import RedisUnavailable
from shared.store.audit.facts import Doubt, Fact, Facts, Stray
from shared.store.audit.key_reader import KeyReader
from shared.store.audit.rules import RULES, Entry
from shared.store.redis.connection import Redis, ResponseError, chunks
from shared.store.redis.keys import Keys

LOOK_S = 1.0
"""Seconds between two checks of the same suspects."""
SETTLE_S = 10.0
"""Seconds for which a key must look wrong to be a stray. A lost worker's keys are removed
sooner."""


@dataclass(frozen=True, slots=True)
class Audit:
    """Result of an audit."""

    num_keys: int
    strays: Sequence[Stray]


class Auditor:
    """Looks for strays among the keys of one pool. It changes nothing."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = redis
        self._facts = Facts(keys)
        self.reader = KeyReader(redis, keys)

    async def audit(self, *, settle_s: float = SETTLE_S) -> Audit:
        """Check all keys of the pool, and return the keys that look wrong for `settle_s` seconds.

        If the first check finds no suspect, the call returns without waiting. Keys that are created
        during the call may be missed.
        """
        seen: set[str] = set()
        suspects: set[Stray] = set()
        cursor = 0
        while True:
            cursor, found = await self.reader.scan(cursor)
            seen.update(found)
            suspects.update(await self.check(found))
            if cursor == 0:
                break
        settled_s = time.monotonic() + settle_s
        while suspects and time.monotonic() < settled_s:
            await asyncio.sleep(min(LOOK_S, settle_s))
            suspects = set(await self.check_again(sorted(suspects)))
        return Audit(len(seen), tuple(sorted(suspects)))

    async def check(self, names: Sequence[str]) -> list[Stray]:
        """Return the suspects among the keys `names` and their members."""
        found: list[Stray] = []
        for some in chunks(names):
            found += await self._judge(*await self.reader.read(some))
        return found

    async def check_again(self, suspects: Sequence[Stray]) -> list[Stray]:
        """Return the suspects that still look wrong. Checks no other members of their keys."""
        still: list[Stray] = []
        for some in chunks(suspects):
            members = _members_by_key(some)
            found = await self._judge(*await self.reader.read(list(members), members))
            still += set(found).intersection(some)
        return still

    async def _judge(self, entries: Iterable[Entry], strays: Sequence[Stray]) -> list[Stray]:
        """Return `strays`, followed by the suspects among the keys and members in `entries`."""
        doubts = [pair for entry in entries for pair in self._doubts(entry)]
        replies = await self._look_up(fact for _, doubt in doubts for fact in doubt.unless)
        return [
            *strays,
            *(
                suspect
                for suspect, doubt in doubts
                if not any(_is_true(fact, replies[fact.command]) for fact in doubt.unless)
            ),
        ]

    def _doubts(self, entry: Entry) -> Iterator[tuple[Stray, Doubt]]:
        rule = RULES[entry.kind]
        for doubt in rule.of_key(self._facts, entry):
            yield Stray(entry.key, entry.kind, "", doubt.reason), doubt
        for member in entry.members:
            is_gone = self._facts.lacks(rule.type, entry.key, member)
            for doubt in rule.of_member(self._facts, entry, member):
                suspect = Stray(entry.key, entry.kind, member, doubt.reason)
                yield suspect, Doubt(doubt.reason, (*doubt.unless, is_gone))

    async def _look_up(self, facts: Iterable[Fact]) -> Mapping[tuple[str | int, ...], Any]:
        """Run the Redis commands of all facts, each command once. Return the replies by command."""
        commands = list(dict.fromkeys(fact.command for fact in facts))
        replies: dict[tuple[str | int, ...], Any] = {}
        for some in chunks(commands):
            pipe = self._redis.pipeline(transaction=False)
            for command in some:
                pipe.execute_command(*command)
            replies.update(zip(some, await pipe.execute(raise_on_error=False), strict=True))
        return replies


def _is_true(fact: Fact, reply: Any) -> bool:
    """Return whether `reply` shows that the fact is true. It is false if a key has another type."""
    if isinstance(reply, ResponseError) and str(reply).startswith("WRONGTYPE"):
        return False
    if isinstance(reply, Exception):
        raise RedisUnavailable(f"Redis can't serve for now: {reply}") from reply
    return fact.is_shown_by(reply)


def _members_by_key(suspects: Iterable[Stray]) -> dict[str, list[str]]:
    """Return the members of the suspects by key. A suspect that is a whole key has no members."""
    members: dict[str, set[str]] = {}
    for suspect in suspects:
        members.setdefault(suspect.key, set()).add(suspect.member)
    return {key: sorted(of_key - {""}) for key, of_key in members.items()}
