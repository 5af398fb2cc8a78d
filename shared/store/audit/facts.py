"""Strays of an audit, and facts about a pool. A fact can show that a key is in use. Pure.

A fact is read with one short command of Redis. If a method of `Facts` returns several facts, its
statement holds if any of them is true.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from shared.protocol.ids import JobId
from shared.protocol.jobs import JobState
from shared.store.redis.keys import Keys

_LOOKUPS = {"zset": "ZSCORE", "hash": "HGET"}


@dataclass(frozen=True, slots=True, order=True)
class Stray:
    """A key, or a member of a key, that breaks the rule of its kind (`rules.py`)."""

    key: str
    kind: str
    """Kind of the key: the word after the pool's prefix."""
    member: str
    """Member of a set or sorted set, or field of a hash; empty if the key itself is the stray."""
    reason: str


@dataclass(frozen=True, slots=True)
class Fact:
    """A statement about the pool, and a command whose reply shows whether the statement is true."""

    command: tuple[str | int, ...]
    is_shown_by: Callable[[Any], bool]
    """Returns whether the command's reply shows that the fact is true."""


@dataclass(frozen=True, slots=True)
class Doubt:
    """A reason why a key or one of its members seems to be a stray."""

    reason: str
    unless: tuple[Fact, ...] = ()
    """Facts that clear the doubt if any of them is true."""


class Facts:
    """Creates facts about one pool."""

    def __init__(self, keys: Keys) -> None:
        self.keys = keys

    def exists(self, key: str) -> Fact:
        """Return a `Fact` that states: the key exists."""
        return Fact(("EXISTS", key), bool)

    def is_missing(self, key: str) -> Fact:
        """Return a `Fact` that states: the key doesn't exist."""
        return Fact(("EXISTS", key), lambda reply: not reply)

    def lacks(self, type_: str, key: str, member: str) -> Fact:
        """Return a `Fact` that states: the set, sorted set or hash `key` doesn't have `member`."""
        if type_ == "set":
            return Fact(("SISMEMBER", key, member), lambda reply: not reply)
        return Fact((_LOOKUPS[type_], key, member), lambda reply: reply is None)

    def is_in_zset(self, key: str, member: str) -> Fact:
        """Return a `Fact` that states: the sorted set `key` has `member`."""
        return Fact(("ZSCORE", key, member), _is_found)

    def is_in_set(self, key: str, member: str) -> Fact:
        """Return a `Fact` that states: the set `key` has `member`."""
        return Fact(("SISMEMBER", key, member), bool)

    def is_in_list(self, key: str, item: str) -> Fact:
        """Return a `Fact` that states: the list `key` contains `item`."""
        return Fact(("LPOS", key, item), _is_found)

    def has_field(self, key: str, field: str, value: str) -> Fact:
        """Return a `Fact` that states: in the hash `key`, the field `field` has `value`."""
        return Fact(("HGET", key, field), lambda reply: bool(reply == value.encode()))

    def is_live_worker(self, worker: str) -> Fact:
        """Return a `Fact` that states: the worker is in the pool."""
        return self.is_in_zset(self.keys.workers, worker)

    def is_known_worker(self, worker: str) -> tuple[Fact, ...]:
        """Return two facts: the worker is in the pool; the worker's jobs are being handed over.

        The worker is known if one of the facts is true.
        """
        return self.is_live_worker(worker), self.is_in_zset(self.keys.lost, worker)

    def has_lease_after(self, worker: str, time_ms: int) -> Fact:
        """Return a `Fact` that states: the worker has left, or its lease ends after `time_ms`."""
        command = self.is_live_worker(worker).command
        return Fact(command, lambda reply: reply is None or float(reply) > time_ms)

    def job_is(
        self, job: str, states: Iterable[JobState], *, version: str = "", owner: str = ""
    ) -> Fact:
        """Return a `Fact` that states: the job is in one of `states`, of `version` and `owner`.

        An empty `version` matches any version, and an empty `owner` matches any owner.
        """
        allowed = {state.encode() for state in states}

        def is_shown_by(reply: Any) -> bool:
            state, its_version, its_owner = reply
            is_of_version = not version or its_version == version.encode()
            return state in allowed and is_of_version and (not owner or its_owner == owner.encode())

        return Fact(("HMGET", self.keys.job(JobId(job)), "state", "version", "owner"), is_shown_by)

    def some_job_waits(self) -> tuple[Fact, ...]:
        """Return three facts, any of which shows that some job waits.

        They are: a job waits for a worker; a quarantined version has jobs; a paused version has
        jobs.
        """
        return tuple(map(self.exists, (self.keys.ready, self.keys.doomed, self.keys.held)))


def _is_found(reply: Any) -> bool:
    return reply is not None
