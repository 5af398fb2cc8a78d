"""The reader of this project, in the form of a client library."""

from collections.abc import AsyncIterator

import httpx
import orjson

from ops.lab.chaos.load.answer import DONE, choice_text
from ops.lab.chaos.load.sdks.in_process import JOB_HEADER, TIMEOUT_S
from ops.lab.chaos.load.sdks.sdk import Api, Part, SdkError, SdkRequest
from ops.lab.chaos.load.sse import read_events


class OwnReader:
    name = "own reader"
    apis = frozenset((Api.COMPLETIONS,))

    async def stream(self, request: SdkRequest) -> AsyncIterator[Part]:
        """Yield the parts of a stream. The first one names the job."""
        url = f"{request.url}/v1/completions"
        async with (
            httpx.AsyncClient(timeout=TIMEOUT_S) as http,
            http.stream("POST", url, json=request.fields, headers=request.headers) as response,
        ):
            if response.status_code != 200:
                raise SdkError((await response.aread()).decode(), response.status_code)
            yield Part(job=response.headers[JOB_HEADER])
            async for event in read_events(response):
                if event.data != DONE:
                    for part in _parts(orjson.loads(event.data)):
                        yield part


def _parts(body: dict) -> list[Part]:
    if "error" in body:
        raise SdkError(body["error"]["code"])
    return [
        Part(choice=each["index"], text=choice_text(each), finish=each["finish_reason"])
        for each in body["choices"]
    ]
