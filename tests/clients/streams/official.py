"""Streams of openai and anthropic for Python, in the versions of the clients' environment."""

from typing import Any

import anthropic
import openai
from serving import Parts, Request, serve


def client_of(request: Request) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{request['url']}/v1", api_key="none", max_retries=0)


def split(request: Request) -> dict[str, Any]:
    """Return parameters of a call. The libraries don't know some fields of the body."""
    fields = dict(request["fields"])
    extra = {name: fields.pop(name) for name in ("ignore_eos", "seed")}
    return {**fields, "extra_body": extra}


async def chat(request: Request) -> Parts:
    async for chunk in await client_of(request).chat.completions.create(**split(request)):
        choice = chunk.choices[0]
        yield {"text": choice.delta.content or "", "finish": choice.finish_reason}


async def completions(request: Request) -> Parts:
    async for chunk in await client_of(request).completions.create(**split(request)):
        yield {"text": chunk.choices[0].text, "finish": chunk.choices[0].finish_reason}


async def responses(request: Request) -> Parts:
    fields = split(request)
    del fields["stream"]
    async with client_of(request).responses.stream(**fields) as stream:
        async for event in stream:
            if event.type == "response.output_text.delta":
                yield {"text": event.delta}
            elif event.type == "response.incomplete":
                assert event.response.incomplete_details.reason == "max_output_tokens"
                yield {"finish": "length"}


async def messages(request: Request) -> Parts:
    client = anthropic.AsyncAnthropic(base_url=request["url"], api_key="none", max_retries=0)
    fields = split(request)
    del fields["stream"]
    async with client.messages.stream(**fields) as stream:
        async for text in stream.text_stream:
            yield {"text": text}
        message = await stream.get_final_message()
    assert message.stop_reason == "max_tokens"
    yield {"finish": "length"}


if __name__ == "__main__":
    serve({f.__name__: f for f in (chat, completions, responses, messages)})
