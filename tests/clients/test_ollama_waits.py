"""Clients of Ollama's API accept what keeps a waiting stream alive, between all lines."""

import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler

import pytest
from rendered_job import spec
from threaded_server import LocalServer, QuietHandler, running

from api.follow.transcript import Delta
from api.formats import stream_of
from api.ollama.body import Kind, request_of
from shared.protocol.jobs import View
from shared.protocol.results import FinishReason, Usage

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]  # clients import for seconds
TEXT = ("It ", "is ", "sunny.")
PAUSE_S = 0.2
PROGRAMS = {
    "python": (
        ["python", "-c"],
        "import ollama\n"
        "for part in ollama.chat('m', [{'role': 'user', 'content': 'x'}], stream=True):\n"
        "    print(part.message.content, end='')\n",
    ),
    "python, texts": (
        ["python", "-c"],
        "import ollama\n"
        "for part in ollama.generate('m', 'x', stream=True): print(part.response, end='')\n",
    ),
    "node": (
        ["node", "--input-type=module", "--eval"],
        "import { Ollama } from 'ollama';\n"
        "console.warn = (...words) => { throw new Error(words.join(' ')); };\n"
        "const client = new Ollama({ host: process.env.OLLAMA_HOST });\n"
        "const messages = [{ role: 'user', content: 'x' }];\n"
        "const stream = await client.chat({ model: 'm', messages, stream: true });\n"
        "for await (const part of stream) process.stdout.write(part.message.content);\n",
    ),
    "LangChain": (
        ["python", "-c"],
        "from langchain_ollama import ChatOllama\n"
        "for part in ChatOllama(model='m').stream('x'): print(part.text, end='')\n",
    ),
    "LiteLLM": (
        ["python", "-c"],
        "import litellm, os\n"
        "stream = litellm.completion(model='ollama_chat/m', stream=True,\n"
        "    api_base=os.environ['OLLAMA_HOST'], messages=[{'role': 'user', 'content': 'x'}])\n"
        "for part in stream: print(part.choices[0].delta.content or '', end='')\n",
    ),
}


class _Waiting(QuietHandler):
    """Sends a stream as the front end does, with pauses before and between its lines."""

    def do_POST(self) -> None:
        self.read_body()
        kind = Kind(self.path.removeprefix("/api/"))
        stream = stream_of(spec(view=View.OLLAMA, request=request_of(kind, "m")))
        usage = Usage(prompt_tokens=1, completion_tokens=3)
        self.send_response(200)
        self.send_header("Content-Type", stream.media_type)
        self.end_headers()
        for text in TEXT:
            self.pause(stream.idle or b"")
            self.wfile.write(stream.chunks([Delta(0, text, None)]))
        self.pause(stream.idle or b"")
        self.wfile.write(stream.chunks([Delta(0, "", FinishReason.STOP)]) + stream.closing(usage))

    def pause(self, idle: bytes) -> None:
        for _ in range(3):
            self.wfile.write(idle)
            self.wfile.flush()
            time.sleep(PAUSE_S)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    handler: Callable[..., BaseHTTPRequestHandler] = _Waiting
    with running(LocalServer(handler)) as server:
        yield server.url


@pytest.mark.parametrize("client", PROGRAMS)
def test_a_stream_with_pauses_arrives_whole(
    url: str, run_client: Callable[..., str], client: str
) -> None:
    words, code = PROGRAMS[client]
    printed = run_client([*words, code], {"OLLAMA_HOST": url})
    assert printed == "".join(TEXT)
