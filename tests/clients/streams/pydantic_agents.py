"""Streams of Pydantic AI."""

from typing import Any

from anthropic import AsyncAnthropic
from openai import AsyncOpenAI
from pydantic_ai import Agent
from pydantic_ai.models import Model
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider
from serving import Parts, Request, serve


async def parts(model: Model, request: Request) -> Parts:
    fields = request["fields"]
    asked = fields.get("messages") or fields["input"]
    settings: Any = {
        "max_tokens": fields.get("max_tokens") or fields["max_output_tokens"],
        "extra_body": {name: fields[name] for name in ("ignore_eos", "seed")},
    }
    async with Agent(model).run_stream(asked[0]["content"], model_settings=settings) as run:
        async for text in run.stream_text(delta=True, debounce_by=None):
            yield {"text": text}
        yield {"finish": run.response.finish_reason}


def openai_provider(request: Request) -> OpenAIProvider:
    client = AsyncOpenAI(base_url=f"{request['url']}/v1", api_key="none", max_retries=0)
    return OpenAIProvider(openai_client=client)


def chat(request: Request) -> Parts:
    model = OpenAIChatModel(request["fields"]["model"], provider=openai_provider(request))
    return parts(model, request)


def responses(request: Request) -> Parts:
    model = OpenAIResponsesModel(request["fields"]["model"], provider=openai_provider(request))
    return parts(model, request)


def messages(request: Request) -> Parts:
    client = AsyncAnthropic(base_url=request["url"], api_key="none", max_retries=0)
    provider = AnthropicProvider(anthropic_client=client)
    return parts(AnthropicModel(request["fields"]["model"], provider=provider), request)


if __name__ == "__main__":
    serve({f.__name__: f for f in (chat, responses, messages)})
