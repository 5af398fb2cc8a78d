"""Streams of LangChain."""

from typing import Any

from langchain_anthropic import ChatAnthropic
from langchain_openai import ChatOpenAI, OpenAI
from serving import Parts, Request, serve

FINISHES = {"max_tokens": "length", "incomplete": "length"}


def options(request: Request) -> dict[str, Any]:
    fields = request["fields"]
    return {
        "model": fields["model"],
        "base_url": f"{request['url']}/v1",
        "api_key": "none",
        "max_tokens": fields.get("max_tokens") or fields["max_output_tokens"],
        "max_retries": 0,
        "extra_body": extra(request),
    }


def extra(request: Request) -> dict[str, Any]:
    return {name: request["fields"][name] for name in ("ignore_eos", "seed")}


async def parts(model: Any, prompt: Any) -> Parts:
    async for chunk in model.astream(prompt):
        yield {"text": chunk.text, "finish": finish_of(chunk.response_metadata)}


def finish_of(metadata: dict[str, Any]) -> str | None:
    found = [metadata.get(name) for name in ("finish_reason", "stop_reason", "status")]
    return next((FINISHES.get(each, each) for each in found if each), None)


async def chat(request: Request) -> Parts:
    async for part in parts(ChatOpenAI(**options(request)), request["fields"]["messages"]):
        yield part


async def responses(request: Request) -> Parts:
    model = ChatOpenAI(**options(request), use_responses_api=True)
    async for part in parts(model, request["fields"]["input"]):
        yield part


async def completions(request: Request) -> Parts:
    model = OpenAI(**options(request))
    async for text in model.astream(request["fields"]["prompt"]):
        yield {"text": text}


async def messages(request: Request) -> Parts:
    given = {**options(request), "base_url": request["url"]}
    model = ChatAnthropic(model_kwargs={"extra_body": given.pop("extra_body")}, **given)
    async for part in parts(model, request["fields"]["messages"]):
        yield part


if __name__ == "__main__":
    serve({f.__name__: f for f in (chat, completions, responses, messages)})
