"""Reads keys of a pool for an audit, many keys with each round trip."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shared.store.audit.facts import Stray
from shared.store.audit.rules import RULES, Entry
from shared.store.redis.connection import Redis, unix_ms
from shared.store.redis.keys import Keys

SCAN_COUNT = 200
"""Number of keys that one call of SCAN looks at."""
NUM_MEMBERS = 200
"""Number of members that are read of each key. If a key has more, they are a random sample."""
_SAMPLES = {"zset": "ZRANDMEMBER", "set": "SRANDMEMBER", "hash": "HRANDFIELD"}
_ABSENT = "none"
"""Type that Redis reports for a key that doesn't exist."""


@dataclass(frozen=True, slots=True)
class _Key:
    """A key whose kind has a rule."""

    key: str
    kind: str
    name: str
    has_expiry: bool


class KeyReader:
    """Reads what the rules of an audit need to know about keys."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = redis
        self._prefix = keys.prefix

    async def scan(self, cursor: int) -> tuple[int, list[str]]:
        """Return the next cursor, 0 at the end, and some keys of the pool, which may repeat."""
        cursor, found = await self._redis.scan(cursor, match=f"{self._prefix}*", count=SCAN_COUNT)
        return cursor, [_text(raw) for raw in found]

    async def read(
        self, names: Sequence[str], members: Mapping[str, Sequence[str]] | None = None
    ) -> tuple[list[Entry], list[Stray]]:
        """Return the keys whose kind has a rule, and the strays among the others.

        Keys that no longer exist are left out. `members` has the members to check, by key; by
        default they are a sample.
        """
        now_ms = unix_ms(await self._redis.time())
        known, strays = await self._known(names)
        fields = await self._fields(known)
        sampled = await self._members(known) if members is None else members
        entries = [
            Entry(
                key=key.key,
                kind=key.kind,
                name=key.name,
                has_expiry=key.has_expiry,
                now_ms=now_ms,
                fields=fields.get(key.key, {}),
                members=sampled.get(key.key, ()),
            )
            for key in known
        ]
        return entries, strays

    async def _known(self, names: Sequence[str]) -> tuple[list[_Key], list[Stray]]:
        pipe = self._redis.pipeline(transaction=False)
        for key in names:
            pipe.type(key)
            pipe.pttl(key)
        flat = await pipe.execute()
        known: list[_Key] = []
        strays: list[Stray] = []
        for key, raw_type, ttl_ms in zip(names, flat[::2], flat[1::2], strict=True):
            kind, _, name = key.removeprefix(self._prefix).partition(":")
            if (type_ := _text(raw_type)) == _ABSENT:
                continue
            if reason := _refusal(kind, type_):
                strays.append(Stray(key, kind, "", reason))
            else:
                known.append(_Key(key, kind, name, has_expiry=ttl_ms >= 0))
        return known, strays

    async def _fields(self, known: Sequence[_Key]) -> dict[str, dict[str, str]]:
        pipe = self._redis.pipeline(transaction=False)
        hashes = [(key.key, RULES[key.kind].fields) for key in known if RULES[key.kind].fields]
        for key, fields in hashes:
            pipe.hmget(key, list(fields))
        replies = await pipe.execute()
        return {
            key: dict(_present(fields, values))
            for (key, fields), values in zip(hashes, replies, strict=True)
        }

    async def _members(self, known: Sequence[_Key]) -> dict[str, list[str]]:
        pipe = self._redis.pipeline(transaction=False)
        checked = [key for key in known if RULES[key.kind].has_members]
        for key in checked:
            pipe.execute_command(_SAMPLES[RULES[key.kind].type], key.key, NUM_MEMBERS)
        replies = await pipe.execute()
        return {
            key.key: [_text(raw) for raw in reply or ()]
            for key, reply in zip(checked, replies, strict=True)
        }


def _refusal(kind: str, type_: str) -> str | None:
    """Return what is wrong with a key of this kind and type, or None if a rule applies to it."""
    if kind not in RULES:
        return "this release knows no such kind of key"
    if type_ != RULES[kind].type:
        return f"it is a {type_} instead of a {RULES[kind].type}"
    return None


def _present(fields: Sequence[str], values: Sequence[Any]) -> Iterator[tuple[str, str]]:
    pairs = zip(fields, values, strict=True)
    return ((field, _text(value)) for field, value in pairs if value is not None)


def _text(raw: bytes) -> str:
    return raw.decode(errors="replace")
