"""Explains why a Redis server refuses a login. The messages never contain a password."""

from dataclasses import dataclass
from typing import Any

from redis.exceptions import RedisError

_FORM = "redis://[USER]:PASSWORD@HOST:PORT/0"
_HOW = (
    f"set LORIKEET_REDIS_URL to {_FORM}, with special characters percent-encoded "
    "(--redis-url would show the password in the list of processes)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """The server of a connection pool, and how the pool logs in there."""

    place: str
    """Address of the server, such as `127.0.0.1:6379`."""
    has_password: bool
    """Whether the URL contains a password."""


def server_of(pool: Any) -> Server:
    """Return the server to which the connections of a redis-py pool lead."""
    options = pool.connection_kwargs
    sentinels = options.get("sentinels")
    if sentinels is not None:
        place = f"service {sentinels.service!r} of the Sentinels"
    elif "path" in options:
        place = str(options["path"])
    else:
        place = f"{options.get('host', 'localhost')}:{options.get('port', 6379)}"
    return Server(place=place, has_password=bool(options.get("password")))


def login_refused(server: Server, error: RedisError) -> str:
    """Return the message for a login that `server` refused with `error`."""
    if not server.has_password:
        return f"the Redis at {server.place} needs a password: {_HOW}"
    if "without any password configured" in str(error):
        return (
            f"the Redis at {server.place} has no password, but its URL contains one; remove the "
            "password from --redis-url or LORIKEET_REDIS_URL"
        )
    reason = str(error).rstrip(".")
    return (
        f"the Redis at {server.place} doesn't accept the password or the user of its URL "
        f"({reason}); {_HOW}"
    )


def not_permitted(server: Server, error: RedisError) -> str:
    """Return the message for a command that the user of the URL may not run."""
    reason = str(error).rstrip(".")
    return (
        f"the Redis at {server.place} doesn't let this user run a command ({reason}); give it the "
        "rights `~* &* +@all`, or set another user in LORIKEET_REDIS_URL"
    )
