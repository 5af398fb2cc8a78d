"""Checks the URLs from which adapters may be fetched."""

from collections.abc import Iterable, Sequence

from shared.adapter_sources import BadUrl, RemoteUrl, SourceTemplate, is_remote
from shared.errors import ErrorCode, SettingsError, SourceFailed
from worker.adapters.remote.buckets import missing_package


class AllowedUrls:
    """The URLs of web servers and object stores from which adapters may be fetched."""

    def __init__(
        self,
        roots: Sequence[str] = (),
        at_start: Iterable[str] = (),
        template: SourceTemplate | None = None,
    ) -> None:
        """Allow URLs below `roots`, the sources `at_start`, and the URLs that `template` makes.

        Raises:
            SettingsError: a URL is malformed, or its scheme needs a package that isn't installed.
        """
        self._roots = [_root(root) for root in roots]
        self._exact = {source: _root(source) for source in at_start if is_remote(source)}
        self._template = template

    def __bool__(self) -> bool:
        """Return whether any URL is allowed."""
        return bool(self._roots or self._exact or self._template)

    def __str__(self) -> str:
        """Return the roots, separated by spaces, for the log."""
        return " ".join(root.address for root in self._roots)

    def checked(self, source: str) -> RemoteUrl:
        """Return the parts of a URL. Raises SourceFailed if it is malformed or not allowed."""
        try:
            url = RemoteUrl.parse(source)
        except BadUrl as error:
            message = f"{source[:200]!r} isn't a usable URL: {error}"
            raise SourceFailed(ErrorCode.INVALID_VALUE, message) from None
        is_made = self._template is not None and self._template.makes(source)
        if not is_made and source not in self._exact:
            self.allow(url)
        return url

    def redirect(self, target: str) -> RemoteUrl:
        """Return the parts of a redirect's target. Raises BadUrl or SourceFailed if it is bad."""
        url = RemoteUrl.parse(target)
        self.allow(url)
        return url

    def allow(self, url: RemoteUrl) -> None:
        """Check that a URL is allowed. Raises SourceFailed if it isn't."""
        if not any(url.is_below(root) for root in self._roots):
            raise SourceFailed(
                ErrorCode.SOURCE_NOT_ALLOWED,
                f"{url.address} isn't below a URL from which adapters may be loaded; start the "
                f"workers with --adapter-root {url.scheme}://{url.host}",
            )


def _root(given: str) -> RemoteUrl:
    try:
        url = RemoteUrl.parse(given)
    except BadUrl as error:
        raise SettingsError(f"{given!r} isn't a usable URL: {error}") from None
    if message := missing_package(url.scheme):
        raise SettingsError(f"{given}: {message}")
    return url
