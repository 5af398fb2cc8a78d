"""Reads keys of a pool for an audit, many keys per round trip."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from shared.store.audit.facts import Stray
from shared.store.audit.rules import RULES, Entry
from shared.store.redis.connection import Redis, unix_ms
from shared.store.redis.keys import Keys

SCAN_COUNT = 200
"""Number of keys that one call of SCAN looks at."""
NUM_MEMBERS = 200
"""Maximum number of members to read from one key. If it has more, a random sample is read."""
_SAMPLES = {"zset": "ZRANDMEMBER", "set": "SRANDMEMBER", "hash": "HRANDFIELD"}
_ABSENT = "none"
"""Type that Redis reports for a key that doesn't exist."""


class KeyReader:
    """Reads the properties of keys that the rules of an audit need."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = redis
        self._prefix = keys.prefix

    async def scan(self, cursor: int) -> tuple[int, list[str]]:
        """Return the next cursor (0 at the end) and some keys of the pool.

        Several calls may return the same key.
        """
        cursor, found = await self._redis.scan(cursor, match=f"{self._prefix}*", count=SCAN_COUNT)
        return cursor, [_text(raw) for raw in found]

    async def read(
        self, names: Sequence[str], members: Mapping[str, Sequence[str]] | None = None
    ) -> tuple[list[Entry], list[Stray]]:
        """Return the keys to which a rule applies, and all other keys as strays.

        Keys that no longer exist are left out. `members` are the members to check, by key; by
        default a sample of each key's members.
        """
        now_ms = unix_ms(await self._redis.time())
        known, strays = await self._known(names, now_ms)
        fields = await self._fields(known)
        checked = await self._members(known) if members is None else members
        entries = [
            replace(entry, fields=fields.get(entry.key, {}), members=checked.get(entry.key, ()))
            for entry in known
        ]
        return entries, strays

    async def _known(self, names: Sequence[str], now_ms: int) -> tuple[list[Entry], list[Stray]]:
        """Return the same as `read`, but without the fields and the members of the keys."""
        pipe = self._redis.pipeline(transaction=False)
        for key in names:
            pipe.type(key)
            pipe.pttl(key)
        flat = await pipe.execute()
        known: list[Entry] = []
        strays: list[Stray] = []
        for key, raw_type, ttl_ms in zip(names, flat[::2], flat[1::2], strict=True):
            kind, _, name = key.removeprefix(self._prefix).partition(":")
            if (type_ := _text(raw_type)) == _ABSENT:
                continue
            if reason := _refusal(kind, type_):
                strays.append(Stray(key, kind, "", reason))
            else:
                has_expiry = ttl_ms >= 0
                known.append(
                    Entry(key=key, kind=kind, name=name, has_expiry=has_expiry, now_ms=now_ms)
                )
        return known, strays

    async def _fields(self, known: Sequence[Entry]) -> dict[str, dict[str, str]]:
        """Return the fields that the rules need, by hash key. Missing fields are left out."""
        pipe = self._redis.pipeline(transaction=False)
        hashes = [(entry.key, RULES[entry.kind].fields) for entry in known]
        hashes = [(key, fields) for key, fields in hashes if fields]
        for key, fields in hashes:
            pipe.hmget(key, list(fields))
        return {
            key: {
                field: _text(raw)
                for field, raw in zip(fields, values, strict=True)
                if raw is not None
            }
            for (key, fields), values in zip(hashes, await pipe.execute(), strict=True)
        }

    async def _members(self, known: Sequence[Entry]) -> dict[str, list[str]]:
        pipe = self._redis.pipeline(transaction=False)
        checked = [entry for entry in known if RULES[entry.kind].has_members]
        for entry in checked:
            pipe.execute_command(_SAMPLES[RULES[entry.kind].type], entry.key, NUM_MEMBERS)
        return {
            entry.key: [_text(raw) for raw in reply or ()]
            for entry, reply in zip(checked, await pipe.execute(), strict=True)
        }


def _refusal(kind: str, type_: str) -> str | None:
    """Return why no rule applies to a key of this kind and Redis type; None if a rule applies."""
    if kind not in RULES:
        return "this release knows no such kind of key"
    if type_ != RULES[kind].type:
        return f"it is a {type_} instead of a {RULES[kind].type}"
    return None


def _text(raw: bytes) -> str:
    return raw.decode(errors="replace")
