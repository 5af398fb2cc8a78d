"""API keys in the settings, and the tenants that they identify.

`shared/store/access/key_store.py` stores the keys that `lorikeet keys create` makes.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

from shared.errors import SettingsError
from shared.settings import ApiSettings

MIN_KEY_CHARS = 16
"""Minimum length of a key, in characters. Shorter keys could be guessed.

If a key is given without a tenant, its tenant's name contains a hash of the key. Logs contain
tenant names, so readers of the logs can check guesses of the key against this hash."""
TENANT_HASH_CHARS = 12
ADMIN = "admin"
"""Name of the tenant whose keys may change the served adapters."""

_SEPARATORS = re.compile(r"[\s,]+")
_NAMED = re.compile(r"([A-Za-z0-9_-]{1,64}):(.*)")
_SECRET = re.compile(r"[!-~]+")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key that a client sends, and the tenant that it identifies."""

    tenant: str
    """Name of the tenant in jobs, limits, logs and metrics."""
    secret: str = field(repr=False)


def api_keys(settings: ApiSettings) -> tuple[ApiKey, ...]:
    """Return the keys in the settings. The front end also accepts stored keys.

    Raises:
        SettingsError: a key is malformed or has two tenants, or the key file can't be read. Also
            raised if keys are combined with `allow_anonymous`, or if other machines could use the
            API without a key.
    """
    keys = parse_keys(word.get_secret_value() for word in settings.api_keys)
    if settings.api_key_file is not None:
        keys += parse_keys([_read(settings.api_key_file)])
    _check_is_one_tenant_each(keys)
    for flag, is_given in (("--api-key", keys), ("--require-keys", settings.require_keys)):
        if is_given and settings.allow_anonymous:
            raise SettingsError(
                f"--allow-anonymous and {flag} contradict each other: give only one of them"
            )
    has_rule = keys or settings.require_keys or settings.allow_anonymous
    if not (has_rule or is_loopback(settings.host)):
        raise SettingsError(
            f"--host: {settings.host} can be reached from the network, which needs API keys: give "
            "--api-key or LORIKEET_API_KEYS, --require-keys for keys of `lorikeet keys create`, or "
            "--allow-anonymous to serve every client"
        )
    return keys


def metrics_key(settings: ApiSettings, keys: Iterable[ApiKey]) -> str | None:
    """Return the key that gives access only to the metrics, or None if no such key is set.

    Raises:
        SettingsError: the key is malformed, or is also an API key in `keys`. The message doesn't
            contain the key.
    """
    secret = settings.metrics_key.get_secret_value() if settings.metrics_key else ""
    if not secret:  # containers may set the variable to an empty value
        return None
    if not _SECRET.fullmatch(secret):
        raise SettingsError("--metrics-key: only printable ASCII characters are allowed")
    _check_length(secret, "--metrics-key: the key")
    if secret in {key.secret for key in keys}:
        raise SettingsError("--metrics-key: the key is also an API key; choose another one")
    return secret


def parse_keys(texts: Iterable[str]) -> tuple[ApiKey, ...]:
    """Return the keys in `texts`. A key is written as `secret` or `tenant:secret`.

    Commas or white space separate the keys of one text.

    Raises:
        SettingsError: a key is malformed. The message doesn't contain the key.
    """
    words = [word for text in texts for word in _SEPARATORS.split(text) if word]
    return tuple(_parse(word, number) for number, word in enumerate(words, 1))


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach a server that listens on `host`."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _parse(word: str, number: int) -> ApiKey:
    named = _NAMED.fullmatch(word)
    secret = named[2] if named else word
    if not _SECRET.fullmatch(secret) or (":" in word and not named):
        raise SettingsError(
            f"--api-key: key {number} isn't KEY or TENANT:KEY, where TENANT has only letters, "
            "digits, _ and -, and KEY only printable ASCII characters"
        )
    _check_length(secret, f"--api-key: key {number}")
    return ApiKey(named[1] if named else _tenant_of(secret), secret)


def _check_length(secret: str, name: str) -> None:
    if len(secret) < MIN_KEY_CHARS:
        raise SettingsError(
            f"{name} is shorter than {MIN_KEY_CHARS} characters; "
            "`openssl rand -hex 24` generates a good key"
        )


def _tenant_of(secret: str) -> str:
    return f"key-{hashlib.sha256(secret.encode()).hexdigest()[:TENANT_HASH_CHARS]}"


def _check_is_one_tenant_each(keys: Iterable[ApiKey]) -> None:
    tenants: dict[str, str] = {}
    for key in keys:
        other = tenants.setdefault(key.secret, key.tenant)
        if other != key.tenant:
            raise SettingsError(f"--api-key: tenants {other} and {key.tenant} have the same key")


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"--api-key-file: can't read {path}: {error}") from None
