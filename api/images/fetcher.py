"""Fetches the images that requests name by URLs."""

import asyncio
from base64 import b64encode
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor

from api.http.turns.fair_slots import FairSlots
from api.images.urls import UrlPlace
from shared.adapter_sources import BUCKETS, BadUrl, RemoteUrl
from shared.errors import AdapterRejected, ErrorCode, JobFailed, SourceFailed, invalid_value
from shared.guarded_fetch.budget import FetchBudget
from shared.guarded_fetch.pinned_connection import AddressCheck
from shared.guarded_fetch.web import fetch_over_http
from shared.protocol.images import MAX_IMAGES

MAX_FETCHES = 8
"""Maximum number of requests of one front end whose images are fetched at the same time."""
MAX_FETCHES_OF_TENANT = 4
FETCH_S = 10.0
"""Maximum seconds for the images of one request."""
SETTING = "the server's --image-private-host"
_NOT_ALLOWED = f"its address, or that of a redirect, isn't public; {SETTING} allows it"


class ImageFetcher:
    """Fetches images from public addresses, and from the private hosts that settings allow."""

    def __init__(self, private_hosts: Collection[str], *, max_body_bytes: int) -> None:
        """Create a fetcher. In base64, all images of a request have at most `max_body_bytes`."""
        self._addresses = AddressCheck(private_hosts, setting=SETTING)
        self._max_bytes = max_body_bytes * 3 // 4
        self._slots = FairSlots(MAX_FETCHES, max_per_tenant=MAX_FETCHES_OF_TENANT)
        self._threads = ThreadPoolExecutor(MAX_FETCHES, thread_name_prefix="image-fetch")

    async def inline(self, tenant: str, places: Sequence[UrlPlace]) -> None:
        """Replace the URLs in `places` by data URLs of the images that they name.

        Raises:
            JobFailed: an image can't be fetched. The error names the field.
        """
        if len(places) > MAX_IMAGES:
            path = places[MAX_IMAGES].path
            raise invalid_value(f"{path}: a request can have at most {MAX_IMAGES} images", path)
        loop = asyncio.get_running_loop()
        async with self._slots.slot(tenant):
            urls = await loop.run_in_executor(self._threads, self._fetched, places)
        for place, url in zip(places, urls, strict=True):
            place.holder[place.field] = url

    def _fetched(self, places: Sequence[UrlPlace]) -> list[str]:
        budget = FetchBudget(
            max_bytes=self._max_bytes, time_s=FETCH_S, limit="the server's --max-body-bytes allows"
        )
        return [self._data_url(place, budget) for place in places]

    def _data_url(self, place: UrlPlace, budget: FetchBudget) -> str:
        try:
            url = RemoteUrl.parse(place.url.partition("#")[0])
            pieces = fetch_over_http(url, allow=_allow, check=self._addresses, budget=budget)
            return "data:image/any;base64," + b64encode(b"".join(pieces)).decode()
        except (BadUrl, AdapterRejected) as error:
            raise _refusal(place, error) from None


def _allow(url: RemoteUrl) -> None:
    """Check the URL of a redirect. Its address is checked when it is connected to."""
    if url.scheme in BUCKETS:
        raise AdapterRejected("it redirects to a URL that isn't http or https")


def _refusal(place: UrlPlace, error: Exception) -> JobFailed:
    is_private = isinstance(error, SourceFailed) and error.code is ErrorCode.SOURCE_NOT_ALLOWED
    reason = _NOT_ALLOWED if is_private else str(error)  # clients needn't know the address
    return invalid_value(f"{place.path}: the image can't be fetched: {reason}", place.path)
