"""Secrets of stored API keys: their form and their digests. Redis stores only digests."""

import hashlib
import re
import secrets

PREFIX = "lk-"
"""Prefix of every stored key. Scanners for leaked keys recognise keys by the prefix."""
_ID_BYTES, _SECRET_BYTES = 6, 32
_FORM = re.compile(rf"{PREFIX}([0-9a-f]{{{2 * _ID_BYTES}}})-[A-Za-z0-9_-]{{43}}")


def new_secret() -> str:
    """Return a new random key. It contains the id of its record."""
    return f"{PREFIX}{secrets.token_hex(_ID_BYTES)}-{secrets.token_urlsafe(_SECRET_BYTES)}"


def id_of(secret: str) -> str | None:
    """Return the id in a key, or None if the text doesn't have the form of a stored key."""
    found = _FORM.fullmatch(secret)
    return found[1] if found else None


def digest_of(secret: str) -> str:
    """Return the digest of a key, as Redis stores it. No salt is needed for 256 random bits."""
    return hashlib.sha256(secret.encode()).hexdigest()
