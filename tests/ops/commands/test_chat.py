"""`lorikeet chat` against a scripted server, and the lines of event streams that it reads."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from command_line import lorikeet
from sse_events import sse_bytes
from threaded_server import LocalServer, QuietHandler, running

from ops.chat.conversation import CommandError
from ops.commands.clients.chat import _completed
from ops.server_client import ServerError, sse_lines

MODELS = ("base", "pirate")


class ScriptedChat(LocalServer):
    """Server that answers every chat with `MODEL heard N messages`.

    The last message can ask for something else: `add` the models that are missing, `refuse` the
    request, `fail` within the answer, `break` off the connection, `end` the stream early, or `hang`
    after the first word until the client disconnects.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(Handler)
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.wants_key = False
        self.models = MODELS
        self.client_left = threading.Event()


class Handler(QuietHandler):
    server: ScriptedChat

    def do_GET(self) -> None:
        self.server.keys.append(self.headers["Authorization"])
        if self.server.wants_key:
            self.reply(401, {"error": {"message": "an API key is needed"}})
        else:
            self.reply(200, {"data": [{"id": name} for name in self.server.models]})

    def do_POST(self) -> None:
        request = json.loads(self.read_body())
        self.server.requests.append(request)
        words = [f"{request['model']} ", f"heard {len(request['messages'])} ", "messages"]
        deltas: list[Any] = [{"role": "assistant"}, *({"content": word} for word in words)]
        chunks = [{"choices": [{"delta": delta}]} for delta in deltas]
        first = sse_bytes(*chunks[:2])
        order = request["messages"][-1]["content"]
        match order:
            case "refuse":
                self.reply(429, {"error": {"message": "the queue is full"}})
            case "fail":
                self.reply(200, first + sse_bytes({"error": {"message": "it was cancelled"}}))
            case "break":
                self.reply(200, first, missing=1000)
            case "end":
                self.reply(200, first)
            case "hang":
                self.reply(200, first, missing=1000)
                self.rfile.read(1)  # returns when the client closes its connection
                self.server.client_left.set()
            case "cut":
                cut = {"choices": [{"delta": {}, "finish_reason": "length"}]}
                self.reply(200, sse_bytes(*chunks, cut) + b"data: [DONE]\n\n")
            case _:
                self.server.models = MODELS if order == "add" else self.server.models
                whole = sse_bytes(*chunks, {"choices": []})
                self.reply(200, whole + b": ping\n\ndata: [DONE]\n\n")


@pytest.fixture
def server() -> Iterator[ScriptedChat]:
    with running(ScriptedChat()) as server:
        yield server


def chat(server: ScriptedChat, *words: str, typed: str, **env: str) -> str:
    argv = ["chat", *words, "--url", server.url]
    return lorikeet(*argv, input=typed, env={"COLUMNS": "120", **env})


@pytest.mark.parametrize("typed", ["\nhi\n\n", "hi\n/quit\nhi\n"])
def test_the_base_model_gets_each_line_up_to_quit_but_no_empty_ones(
    server: ScriptedChat, typed: str
) -> None:
    chat(server, typed=typed)
    assert [request["model"] for request in server.requests] == ["base"]


@pytest.mark.parametrize("typed", ["/compare base pirate\nhi\n", None])
def test_two_models_answer_side_by_side(server: ScriptedChat, typed: str | None) -> None:
    flags = [] if typed else ["base", "--compare", "pirate"]
    shown = chat(server, *flags, typed=typed or "hi\n")
    lines = [re.split(r"  +", line.strip()) for line in shown.splitlines()]
    assert ["base", "pirate"] in lines
    assert ["base heard 1 messages", "pirate heard 1 messages"] in lines


def test_the_prompt_names_the_models_and_every_command_is_confirmed(server: ScriptedChat) -> None:
    words = ("/model", "/model pirate", "hi", "/compare base", "so?", "/reset", "again", "/help")
    shown = chat(server, typed="".join(f"{word}\n" for word in words))
    assert "\nbase> base, pirate\n" in f"\n{shown}"
    assert "\nbase> a new conversation with pirate\n" in shown
    assert "\npirate> pirate heard 1 messages\n" in shown
    assert "\npirate> a new conversation with pirate and base\n" in shown
    assert "\npirate + base> the conversation is forgotten\n" in shown
    heard = [(each["model"], len(each["messages"])) for each in server.requests]
    assert sorted(heard) == [*[("base", 1)] * 2, *[("pirate", 1)] * 3]
    for word in ("/model", "/compare", "/reset", "/quit", "Ctrl-C"):
        assert word in shown


def test_a_model_that_was_loaded_after_the_start_can_be_chosen(server: ScriptedChat) -> None:
    with pytest.raises(CommandError, match="there is no model late, only base, pirate"):
        chat(server, "late", typed="")
    server.models = ("base",)
    shown = chat(server, typed="/model pirate\nadd\n/model pirate\nhi\n")
    assert "there is no model pirate, only base" in shown
    assert "pirate heard 1 messages" in shown


def test_each_prompt_has_the_history_with_the_models_own_answers(server: ScriptedChat) -> None:
    chat(server, typed="hi\n/compare pirate base\nyou?\nso?\n")
    for last in server.requests[-2:]:
        model = last["model"]
        assert [message["content"] for message in last["messages"]] == [
            *("you?", f"{model} heard 1 messages", "so?")
        ]
        assert [m["role"] for m in last["messages"]] == ["user", "assistant", "user"]


def test_an_answer_is_limited_and_says_when_it_was_cut_off(server: ScriptedChat) -> None:
    chat(server, typed="hi\n")
    assert server.requests[0]["max_tokens"] == 1024
    shown = chat(server, "--max-tokens", "7", typed="cut\nso?\n")
    assert server.requests[1]["max_tokens"] == 7
    assert "base heard 1 messages\n(cut off; --max-tokens is 7)\n" in shown
    assert "base heard 3 messages" in shown  # the answer stays part of the conversation


def test_tab_completes_commands_and_names() -> None:
    names = ["base", "org/pirate-v1.2", "org/polite"]

    def complete(line: str) -> list[str | None]:
        word = line.rpartition(" ")[2]
        found = (_completed(line, word, names, number) for number in range(9))
        return [each for each in found if each is not None]

    assert complete("/m") == ["/model"]
    assert complete("/model org/") == names[1:]
    assert complete("/model org/pirate-v") == [names[1]]
    assert complete("/compare base o") == names[1:]
    assert complete("/model ") == names
    assert complete("what is a b") == []


def test_one_of_two_models_may_fail_alone(server: ScriptedChat) -> None:
    shown = chat(server, typed="/compare base pirate\nrefuse\nhi\n")
    assert shown.count("the queue is full") == 2
    assert "base heard 1 messages" in shown


@pytest.mark.parametrize(
    ("typed", "reason"),
    [
        ("/model nobody", "there is no model nobody, only base, pirate"),
        ("/compare base nobody", "there is no model nobody, only base, pirate"),
        ("/modle base", "there is no command /modle base; /help lists the commands"),
        ("/compare", "/compare takes 1 to 4 names, such as /compare A B"),
        ("/compare a b c d e", "/compare takes 1 to 4 names, such as /compare A B"),
        ("/compare base", "base, base: give each model once"),
        ("/model base pirate", "/model takes one name; /compare asks several models"),
        ("refuse", "the queue is full"),
        ("fail", "it was cancelled"),
        ("break", "broke before the end of the answer"),
        ("end", "ended the stream before the end of the answer"),
    ],
)
def test_an_error_is_shown_and_the_conversation_goes_on(
    server: ScriptedChat, typed: str, reason: str
) -> None:
    shown = chat(server, typed=f"{typed}\nhi\n")
    assert reason in shown
    assert "base heard 1 messages" in shown


@pytest.mark.parametrize("typed", ["/compare base nobody", "/model nobody", "/modle nobody"])
def test_after_a_refused_command_the_chat_says_which_models_go_on(
    server: ScriptedChat, typed: str
) -> None:
    shown = chat(server, typed=f"{typed}\n/compare pirate\n{typed}\nrefuse\n")
    lines = shown.splitlines()
    assert lines[3] == "the conversation with base goes on"
    assert lines[6] == "the conversation with base and pirate goes on"
    assert shown.count("goes on") == 2, "a refused request needs no such line"


def test_no_server_is_one_clear_error(server: ScriptedChat) -> None:
    server.server_close()
    with pytest.raises(ServerError, match=f"no answer from {server.url}.*`lorikeet up` starts"):
        chat(server, typed="hi\n")


@pytest.mark.parametrize("url", ["http://[bad", "127.0.0.1:80", "localhost", "ftp://host"])
def test_an_invalid_url_is_one_clear_error(url: str) -> None:
    with pytest.raises(ServerError, match=r"isn't a URL such as http://127\.0\.0\.1:23333"):
        lorikeet("chat", "--url", url)


def test_the_url_comes_from_the_flag_or_the_variable(server: ScriptedChat) -> None:
    away = "http://127.0.0.1:1"
    for words, url in (
        ([], server.url),
        ([], f"{server.url}/v1/"),  # the base URL of other clients
        (["--url", server.url], away),
    ):
        shown = lorikeet("chat", *words, input="hi\n", env={"LORIKEET_URL": url})
        assert "base heard 1 messages" in shown


def test_a_server_on_this_machine_is_reached_without_the_proxy(server: ScriptedChat) -> None:
    shown = chat(server, typed="hi\n", http_proxy="http://127.0.0.1:1", no_proxy="", NO_PROXY="")
    assert "base heard 1 messages" in shown


@pytest.mark.parametrize(("flags", "sent"), [([], 0), (["--temperature", "0.7"], 0.7)])
def test_answers_are_greedy_unless_a_temperature_is_given(
    server: ScriptedChat, flags: list[str], sent: float
) -> None:
    chat(server, *flags, typed="hi\n")
    assert server.requests[0]["temperature"] == sent


@pytest.mark.parametrize("is_flag", [True, False])
def test_the_key_comes_from_the_flag_or_is_the_first_of_the_variable(
    server: ScriptedChat, is_flag: bool
) -> None:
    keys = f"red:{'r' * 16},blue:{'b' * 16}"
    if is_flag:
        chat(server, "--api-key", "r" * 16, typed="", LORIKEET_API_KEYS="b" * 16)
    else:
        chat(server, typed="", LORIKEET_API_KEYS=keys)
    assert server.keys == [f"Bearer {'r' * 16}"]


def test_the_error_of_a_missing_key_names_its_flag(server: ScriptedChat) -> None:
    server.wants_key = True
    with pytest.raises(ServerError, match=r"an API key is needed; give one with --api-key, or "):
        chat(server, typed="hi\n")


def test_ctrl_c_stops_an_answer_and_not_the_program(server: ScriptedChat) -> None:
    words = [sys.executable, "-m", "ops.cli", "chat", "--url", server.url]
    env = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        words,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=env,
        # A shell that starts the tests in the background makes them ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"hang\n")
        process.stdin.flush()
        shown = b""
        while b"base " not in shown.partition(b"base> ")[2]:
            shown += process.stdout.read1()
        process.send_signal(signal.SIGINT)
        assert server.client_left.wait(60)
        shown, _ = process.communicate(b"hi\n", timeout=90)
        assert process.returncode == 0
    assert b"(stopped)" in shown
    assert b"base heard 3 messages" in shown  # the part of the answer that was received counts
    assert b"Traceback" not in shown


async def lines_of(*pieces: bytes) -> list[str]:
    async def stream() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    return [line async for line in sse_lines(httpx.Response(200, content=stream()))]


async def test_lines_of_event_streams_end_at_line_feeds_only() -> None:
    line = 'data: {"text": "a\u2028b\u2029c\x85d\x0be"}'
    assert await lines_of(f"{line}\n\n".encode()) == [line, ""]
    raw = "data: 中\r\n".encode()
    assert await lines_of(raw[:7], raw[7:-1], raw[-1:]) == ["data: 中"]
    assert await lines_of(b"id: 1\ndata: {") == ["id: 1"], "a line that is cut off is dropped"
