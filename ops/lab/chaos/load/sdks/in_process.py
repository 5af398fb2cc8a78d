"""The official clients for Python, openai and anthropic, in this process."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import anthropic
import httpx2
import openai

from ops.lab.chaos.load.sdks.sdk import FINISHES, Api, Part, SdkChoked, SdkError, SdkRequest

JOB_HEADER = "X-Lorikeet-Job"
TIMEOUT_S = 180.0


class OpenaiSdk:
    """openai.AsyncOpenAI, with its default of two retries before a stream begins."""

    name = "openai for Python"
    apis = frozenset((Api.CHAT, Api.COMPLETIONS, Api.RESPONSES))

    def __init__(self) -> None:
        self._clients: dict[str, openai.AsyncOpenAI] = {}

    async def stream(self, request: SdkRequest) -> AsyncIterator[Part]:
        """Yield the parts of a stream. The first one names the job."""
        if request.url not in self._clients:
            self._clients[request.url] = openai.AsyncOpenAI(
                base_url=f"{request.url}/v1", api_key="none", timeout=TIMEOUT_S
            )
        client = self._clients[request.url]
        create: Mapping[Api, Any] = {
            Api.CHAT: client.chat.completions.create,
            Api.COMPLETIONS: client.completions.create,
            Api.RESPONSES: client.responses.create,
        }
        parts_of = _response_parts if request.api is Api.RESPONSES else _choice_parts
        with _translated_errors(openai.APIError):
            async for part in _parts(create[request.api], request, parts_of):
                yield part

    async def close(self) -> None:
        """Close all connections."""
        for client in self._clients.values():
            await client.close()


class AnthropicSdk:
    """anthropic.AsyncAnthropic, with its default of two retries before a stream begins."""

    name = "anthropic for Python"
    apis = frozenset((Api.MESSAGES,))

    def __init__(self) -> None:
        self._clients: dict[str, anthropic.AsyncAnthropic] = {}

    async def stream(self, request: SdkRequest) -> AsyncIterator[Part]:
        """Yield the parts of a stream. The first one names the job."""
        if request.url not in self._clients:
            self._clients[request.url] = anthropic.AsyncAnthropic(
                base_url=request.url, api_key="none", timeout=TIMEOUT_S
            )
        create = self._clients[request.url].messages.create
        with _translated_errors(anthropic.APIError):
            async for part in _parts(create, request, _message_parts):
                yield part

    async def close(self) -> None:
        """Close all connections."""
        for client in self._clients.values():
            await client.close()


async def _parts(
    create: Callable[..., Awaitable[Any]],
    request: SdkRequest,
    parts_of: Callable[[Any], Iterator[Part]],
) -> AsyncIterator[Part]:
    fields = dict(request.fields)
    named = {name: fields.pop(name) for name in _NAMED if name in fields}
    async with await create(**named, extra_body=fields, extra_headers=request.headers) as stream:
        yield Part(job=stream.response.headers[JOB_HEADER])
        async for event in stream:
            for part in parts_of(event):
                yield part


_NAMED = frozenset(("model", "messages", "prompt", "input", "stream", "max_tokens"))
"""Fields for which the libraries have parameters. All other fields are in `extra_body`."""


@contextmanager
def _translated_errors(error_type: type[Exception]) -> Iterator[None]:
    """Within the context, raise the library's errors as those of `sdk.py`."""
    try:
        yield
    except (error_type, httpx2.TransportError) as error:
        raise SdkError(repr(error), getattr(error, "status_code", None)) from error
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise SdkChoked(repr(error)) from error


def _choice_parts(chunk: Any) -> Iterator[Part]:
    for choice in chunk.choices:
        text = choice.delta.content if hasattr(choice, "delta") else choice.text
        yield Part(choice=choice.index, text=text or "", finish=choice.finish_reason)


def _response_parts(event: Any) -> Iterator[Part]:
    if event.type == "response.output_text.delta":
        yield Part(text=event.delta)
    elif event.type in ("response.completed", "response.incomplete"):
        yield Part(finish=FINISHES[event.response.status])
    elif event.type == "response.failed":
        raise SdkError(repr(event.response.error))


def _message_parts(event: Any) -> Iterator[Part]:
    if event.type == "content_block_delta":
        yield Part(text=event.delta.text)
    elif event.type == "message_delta":
        yield Part(finish=FINISHES[event.delta.stop_reason])
