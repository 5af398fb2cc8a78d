"""URLs of adapters and images, and templates that turn an adapter's name into a source. Pure."""

import re
from dataclasses import dataclass
from urllib.parse import SplitResult, unquote, urlsplit

from shared.adapter_flags import is_hub_id
from shared.adapter_names import is_valid_name

BUCKETS = ("s3", "gs")
"""Schemes of object stores. In a URL with such a scheme, the host is the name of a bucket."""
NAME = "{name}"
"""Placeholder for the name of an adapter in a template."""
_REMOTE = re.compile(r"(?:s3|gs|https?)://")
_CHARACTERS = re.compile(r"[!-\[\]-~]{1,4096}")
"""Matches a URL: up to 4,096 printable ASCII characters without spaces and backslashes."""
_HOST = re.compile(r"[a-z0-9_](?:[a-z0-9_.-]*[a-z0-9_])?|[0-9a-f:.]*:[0-9a-f:.]*")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,220}[A-Za-z0-9]")
_DIGEST = re.compile(r"sha256=([0-9a-f]{64})")
_PORTS = {"http": 80, "https": 443}


class BadUrl(ValueError):
    """The URL can't be used. The message states the reason."""


def is_remote(source: str) -> bool:
    """Return whether `source` is a URL rather than a folder or a hub id."""
    return _REMOTE.match(source) is not None


def without_query(source: str) -> str:
    """Return `source` for logs. A URL's query is removed, because it may contain a signature."""
    return re.sub(r"\?[^#]*", "", source) if is_remote(source) else source


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteUrl:
    """The parts of a URL."""

    scheme: str
    host: str
    """Name or address of a machine, in lower case, or the name of a bucket."""
    port: int | None
    """Port of the machine; None for buckets."""
    path: str
    """Path with its first slash; empty if the URL has no path."""
    query: str = ""
    sha256: str | None = None
    """Expected SHA-256 of the archive in hex, from the fragment `#sha256=...`."""

    @classmethod
    def parse(cls, source: str) -> "RemoteUrl":
        """Return the parts of a URL.

        Raises:
            BadUrl: the URL is malformed, or it has parts that aren't allowed.
        """
        if not (is_remote(source) and _CHARACTERS.fullmatch(source)):
            raise BadUrl("it isn't an s3, gs, https or http URL of printable ASCII characters")
        parts, port = _split(source)
        if parts.scheme in BUCKETS:
            _check_bucket(parts.netloc, parts.path, parts.query)
            host = parts.netloc
        else:
            host = _host(parts.hostname)
            port = port or _PORTS[parts.scheme]
        return cls(
            scheme=parts.scheme,
            host=host,
            port=port,
            path=_checked_path(parts.path.rstrip("/")),
            query=parts.query,
            sha256=_expected_digest(parts.fragment),
        )

    @classmethod
    def of_page(cls, source: str) -> "RemoteUrl":
        """Return the parts of any https or http URL. Its path and query stay as they are.

        Raises:
            BadUrl: the URL is malformed, or it has a user name or password.
        """
        if not _CHARACTERS.fullmatch(source):
            raise BadUrl("it isn't a URL of at most 4096 printable ASCII characters")
        parts, port = _split(source)
        if parts.scheme not in _PORTS:
            raise BadUrl("it isn't an https or http URL")
        return cls(
            scheme=parts.scheme,
            host=_host((parts.hostname or "").removesuffix(".")),
            port=port or _PORTS[parts.scheme],
            path=parts.path,
            query=parts.query,
        )

    @property
    def address(self) -> str:
        """The URL without query and fragment, for messages."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        is_usual = self.port in (None, _PORTS.get(self.scheme))
        return f"{self.scheme}://{host}{'' if is_usual else f':{self.port}'}{self.path}"

    def is_below(self, root: "RemoteUrl") -> bool:
        """Return whether the URL is `root` or below `root`."""
        mine, its = ((u.scheme, u.host, u.port) for u in (self, root))
        return mine == its and (self.path == root.path or self.path.startswith(f"{root.path}/"))


class SourceTemplate:
    """Source with the placeholder `{name}` for the name of an adapter."""

    def __init__(self, text: str) -> None:
        """Create a template.

        Raises:
            ValueError: the text isn't a valid template. The message says why.
        """
        self._before, name, self._after = text.partition(NAME)
        is_single = name and not set("{}") & set(self._before + self._after)
        if not is_single:
            raise ValueError(f"{text!r} must have {NAME} exactly once, and no other braces")
        self._is_remote = is_remote(text)
        if self._is_remote:
            self._check_url(text)
        elif not text.startswith("/") and not is_hub_id(self.filled("x")):
            raise ValueError(f"{text!r} is neither a URL, an absolute path nor a hub id")

    @classmethod
    def of(cls, text: str | None) -> "SourceTemplate | None":
        """Return the template in a setting's value `text`, or None if the setting has no value."""
        return cls(text) if text else None

    @property
    def folder(self) -> str | None:
        """Folder that contains all adapters; None if the template isn't a path."""
        return (self._before.rpartition("/")[0] or "/") if self._before[:1] == "/" else None

    def filled(self, name: str) -> str:
        """Return the template with `name` in place of the placeholder. The name isn't checked."""
        return f"{self._before}{name}{self._after}"

    def source_of(self, name: str) -> str | None:
        """Return the source of the adapter `name`, or None if no source can be made from it.

        The source is never outside the template's host or folder.
        """
        parts = name.split("/")
        is_usable = is_valid_name(name) and not {"", ".", ".."} & set(parts)
        source = self.filled(name)
        is_local = self._before[:1] == "/"
        return source if is_usable and (self._is_remote or is_local or is_hub_id(source)) else None

    def makes(self, source: str) -> bool:
        """Return whether the template gives `source` for at least one adapter name."""
        end = len(source) - len(self._after)
        name = source[len(self._before) : end]
        return self.source_of(name) == source

    def _check_url(self, text: str) -> None:
        try:
            url = RemoteUrl.parse(self.filled("x"))
        except BadUrl as error:
            raise ValueError(f"{text!r}: {error}") from None
        if RemoteUrl.parse(self.filled("y")).path == url.path:
            raise ValueError(f"{text!r} must have {NAME} in its path")
        if url.sha256:
            raise ValueError(f"{text!r}: different adapters can't have one digest")


def _check_bucket(bucket: str, path: str, query: str) -> None:
    if not _BUCKET.fullmatch(bucket) or ".." in bucket:
        raise BadUrl(f"{bucket!r} isn't the name of a bucket")
    if query or "%" in path:
        raise BadUrl("the path in a bucket can't have a query or percent signs")


def _split(source: str) -> tuple[SplitResult, int | None]:
    """Return the parts of a URL, and its port."""
    try:
        parts = urlsplit(source)
        port = parts.port
    except ValueError as error:
        raise BadUrl(str(error)) from None
    if "@" in parts.netloc:
        raise BadUrl("it has a user name or password")
    return parts, port


def _host(name: str | None) -> str:
    if not name or not _HOST.fullmatch(name) or ".." in name:
        raise BadUrl(f"{name!r} isn't the name of a host")
    return name


def _checked_path(path: str) -> str:
    for segment in path.split("/")[1:]:
        plain = unquote(segment, errors="replace")
        is_odd = plain in ("", ".", "..") or any(c in "/\\%\ufffd" or c < " " for c in plain)
        if is_odd:
            raise BadUrl(f"its path has the part {segment!r}")
    return path


def _expected_digest(fragment: str) -> str | None:
    if not fragment:
        return None
    found = _DIGEST.fullmatch(fragment.lower())
    if not found:
        raise BadUrl("what follows # must be sha256= and 64 hex digits")
    return found[1]
