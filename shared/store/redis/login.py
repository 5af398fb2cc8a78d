"""Messages that explain why a Redis server refuses a login. They never contain a password."""

from typing import Any

from redis.exceptions import RedisError

_FORM = "redis://[USER]:PASSWORD@HOST:PORT/0"
_HOW = (
    f"set LORIKEET_REDIS_URL to {_FORM}, with special characters percent-encoded "
    "(--redis-url would show the password in the list of processes)"
)


def login_refused(pool: Any, error: RedisError) -> str:
    """Return the message for a login that the server of redis-py's `pool` refused with `error`."""
    place = _server_of(pool)
    if not pool.connection_kwargs.get("password"):
        return f"the Redis at {place} needs a password: {_HOW}"
    if "without any password configured" in str(error):
        return (
            f"the Redis at {place} has no password, but its URL contains one; remove the "
            "password from --redis-url or LORIKEET_REDIS_URL"
        )
    reason = str(error).rstrip(".")
    return (
        f"the Redis at {place} doesn't accept the password or the user of its URL "
        f"({reason}); {_HOW}"
    )


def not_permitted(pool: Any, error: RedisError) -> str:
    """Return the message for a command that the user of the pool's URL may not run."""
    reason = str(error).rstrip(".")
    return (
        f"the Redis at {_server_of(pool)} doesn't let this user run a command ({reason}); give it "
        "the rights `~* &* +@all`, or set another user in LORIKEET_REDIS_URL"
    )


def _server_of(pool: Any) -> str:
    """Return the address of a pool's server, such as `127.0.0.1:6379`, or its Sentinel service."""
    options = pool.connection_kwargs
    sentinels = options.get("sentinels")
    if sentinels is not None:
        return f"service {sentinels.service!r} of the Sentinels"
    if "path" in options:
        return str(options["path"])
    return f"{options.get('host', 'localhost')}:{options.get('port', 6379)}"
