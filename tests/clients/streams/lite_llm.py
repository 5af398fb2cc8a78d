"""Streams of LiteLLM."""

from typing import Any

import litellm
import openai  # noqa: F401 -- LiteLLM imports it in several threads, which fails now and then
from serving import Parts, Request, serve


def options(request: Request, provider: str) -> dict[str, Any]:
    fields = dict(request["fields"])
    extra = {name: fields.pop(name) for name in ("ignore_eos", "seed")}
    model = f"{provider}/{fields.pop('model')}"
    common = {"api_key": "none", "num_retries": 0, "extra_body": extra}
    return {**fields, **common, "model": model, "api_base": f"{request['url']}/v1"}


async def chat(request: Request) -> Parts:
    async for chunk in await litellm.acompletion(**options(request, "openai")):
        choice = chunk.choices[0]
        yield {"text": choice.delta.content or "", "finish": choice.finish_reason}


async def completions(request: Request) -> Parts:
    stream = await litellm.atext_completion(**options(request, "text-completion-openai"))
    async for chunk in stream:
        yield {"text": chunk.choices[0].text or "", "finish": chunk.choices[0].finish_reason}


async def responses(request: Request) -> Parts:
    # Otherwise, LiteLLM requests a whole response, and divides it itself.
    streams = {"litellm_provider": "openai", "supports_native_streaming": True}
    litellm.register_model({request["fields"]["model"]: streams})
    async for event in await litellm.aresponses(**options(request, "openai")):
        if event.type == "response.output_text.delta":
            yield {"text": event.delta}
        elif event.type == "response.incomplete":
            yield {"finish": "length"}


async def messages(request: Request) -> Parts:
    given = options(request, "anthropic")
    given |= {"api_base": request["url"], **given.pop("extra_body")}
    given["allowed_openai_params"] = ["seed"]
    async for chunk in await litellm.acompletion(**given):
        choice = chunk.choices[0]
        yield {"text": choice.delta.content or "", "finish": choice.finish_reason}


if __name__ == "__main__":
    serve({f.__name__: f for f in (chat, completions, responses, messages)})
