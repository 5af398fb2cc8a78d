"""Fetches the images that requests name by URLs."""

import asyncio
from base64 import b64encode
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from api.http.turns.fair_slots import FairSlots
from api.images.urls import UrlPlace
from shared.adapter_sources import BadUrl, RemoteUrl
from shared.errors import AdapterRejected, JobFailed, RateLimited, invalid_value
from shared.guarded_fetch.budget import FetchBudget
from shared.guarded_fetch.pinned_connection import AddressCheck, NotPublic
from shared.guarded_fetch.web import fetch_over_http
from shared.protocol.images import MAX_IMAGES

MAX_FETCHES = 8
"""Maximum number of requests of one front end whose images are fetched at the same time."""
MAX_FETCHES_OF_TENANT = 4
FETCH_S = 5.0
"""Maximum seconds for fetching the images of one request. A batch's turn lasts longer."""
RESOLVE_S = 1.0
"""Seconds that a request waits beyond `FETCH_S`. After that, it fails, even if its thread is still
resolving a host name."""
WAIT_S = 10.0
"""Maximum seconds that a request waits for a slot before its images are fetched."""
SETTING = "the server's --image-private-host"
_NOT_ALLOWED = f"its address, or that of a redirect, isn't public; {SETTING} allows it"


class ImageFetcher:
    """Fetches images from public addresses, and from the private hosts that settings allow."""

    def __init__(self, private_hosts: Collection[str], *, max_body_bytes: int) -> None:
        """Create a fetcher. `max_body_bytes` limits all images of a request together, in base64."""
        self._addresses = AddressCheck(private_hosts, setting=SETTING)
        self._max_bytes = max_body_bytes * 3 // 4
        self._slots = FairSlots(MAX_FETCHES, max_per_tenant=MAX_FETCHES_OF_TENANT)
        self._threads = ThreadPoolExecutor(MAX_FETCHES, thread_name_prefix="image-fetch")

    async def data_urls(self, tenant: str, places: Sequence[UrlPlace]) -> list[str]:
        """Return data URLs of the images at `places`.

        Raises:
            JobFailed: an image can't be fetched. The error names the field.
            RateLimited: the request got no slot in time, because the images of too many other
                requests are being fetched.
        """
        if len(places) > MAX_IMAGES:
            path = places[MAX_IMAGES].path
            raise invalid_value(f"{path}: a request can have at most {MAX_IMAGES} images", path)
        fetching = await self._start(tenant, places)
        try:
            # The thread goes on if the client leaves or a name isn't resolved in time.
            return await asyncio.wait_for(asyncio.shield(fetching), FETCH_S + RESOLVE_S)
        except TimeoutError:
            message = f"the images can't be fetched: it takes more than {FETCH_S:g} s"
            raise invalid_value(f"{places[0].path}: {message}", places[0].path) from None

    async def _start(self, tenant: str, places: Sequence[UrlPlace]) -> "asyncio.Future[list[str]]":
        """Wait for a slot of the tenant, and start a thread that fetches the images.

        The slot is released when the thread has finished. Returns the future of the data URLs.
        """
        try:
            async with asyncio.timeout(WAIT_S):
                await self._slots.acquire(tenant)
        except TimeoutError:
            message = "the images of too many other requests are being fetched; try again"
            raise RateLimited(message, retry_after_s=1) from None
        loop = asyncio.get_running_loop()
        fetching = loop.run_in_executor(self._threads, self._fetched, places)

        def ended(future: "asyncio.Future[list[str]]") -> None:
            self._slots.release(tenant)
            with suppress(asyncio.CancelledError):
                future.exception()  # nobody may await it any more

        fetching.add_done_callback(ended)
        return fetching

    def _fetched(self, places: Sequence[UrlPlace]) -> list[str]:
        budget = FetchBudget(
            max_bytes=self._max_bytes, time_s=FETCH_S, limit="the server's --max-body-bytes allows"
        )
        return [self._data_url(place, budget) for place in places]

    def _data_url(self, place: UrlPlace, budget: FetchBudget) -> str:
        try:
            pieces = fetch_over_http(
                RemoteUrl.of_page(place.url),
                parse=RemoteUrl.of_page,
                check=self._addresses,
                budget=budget,
            )
            return "data:image/any;base64," + b64encode(b"".join(pieces)).decode()
        except (BadUrl, AdapterRejected) as error:
            raise _refusal(place, error) from None


def _refusal(place: UrlPlace, error: Exception) -> JobFailed:
    # Clients needn't know the address.
    reason = _NOT_ALLOWED if isinstance(error, NotPublic) else str(error)
    return invalid_value(f"{place.path}: the image can't be fetched: {reason}", place.path)
