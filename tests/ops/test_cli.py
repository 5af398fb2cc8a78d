"""Errors of the command line, and the help pages of all commands, as a terminal shows them."""

import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
from command_line import commands, lorikeet

from ops import cli
from ops.local.embedded_redis import start_redis
from shared.errors import LorikeetError, RedisUnavailable, SettingsError

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs `lorikeet WORDS` and returns its exit status and its output."""

    def run_one(*words: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["lorikeet", *words])
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert isinstance(end.value.code, int)
        return end.value.code, "".join(capsys.readouterr())

    return run_one


TORCH = {"torch", "transformers", "peft", "numpy"}


@pytest.mark.parametrize(
    ("modules", "heavy"),
    [
        ("ops.cli", TORCH | {"fastapi", "uvicorn", "httpx", "arq", "matplotlib"}),
        ("ops.control.process", TORCH),
        ("ops.commands.clients.eval_demo, ops.demo.evaluate, ops.demo.tasks", TORCH),
    ],
)
def test_only_what_needs_torch_and_the_web_stack_imports_them(
    modules: str, heavy: set[str]
) -> None:
    code = f"import sys, {modules}; print({heavy} & set(sys.modules) or 'light')"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "light"


def test_version_is_printed(run: Run) -> None:
    code, printed = run("--version")
    assert code == 0
    assert printed.startswith("lorikeet 0.")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["worker", "--model", "m", "--max-num-seqs", "0"], "--max-num-seqs"),
        (["worker"], "--model is required"),
        (["worker", "a", "--model", "b"], "two base models given: a and --model b"),
        (["up", "--host", "0.0.0.0"], "needs API keys: give --api-key"),
        (["up", "--host", "example.org"], "needs API keys: give --api-key"),
        (["api", "--host", "0.0.0.0"], "needs API keys: give --api-key"),
        (["api", "--api-key", "short"], "--api-key: key 1 is shorter than"),
        (["audit", "--pool", "no spaces"], "--pool"),
        (["audit", "--redis-url", "localhost:6379"], "--redis-url"),
        (
            ["worker", "--model", "m", "--adapters", "--threads", "1"],
            "--adapters: give at least one adapter between it and --threads",
        ),
        (["worker", "--model", "m", "--adapters", "a=x", "a=y"], "'a' is given twice"),
        (["worker", "--model", "m", "--adapters", "a b=x"], "invalid adapter name 'a b'"),
        (["health", "worker", "--url", "http://127.0.0.1:1"], "--url is for `health api`"),
    ],
)
def test_a_wrong_setting_ends_with_one_line_and_code_2(
    run: Run, words: list[str], message: str
) -> None:
    code, printed = run(*words)
    assert code == 2
    assert printed.startswith("lorikeet: ")
    assert printed.count("\n") == 1
    assert message in printed


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["worker", "--kv-cache-mb", "much"], "--kv-cache-mb"),
        (["worker", "--dtype", "int4"], "--dtype"),
        (["api", "--prot", "80"], "--prot"),
        (["sevre"], "sevre"),
    ],
)
def test_a_malformed_command_line_ends_with_code_2(run: Run, words: list[str], part: str) -> None:
    code, printed = run(*words)
    assert (code, part in printed) == (2, True)


@pytest.mark.parametrize("command", ["api", "worker", "control", "up"])
def test_a_misspelt_variable_is_named_and_does_not_prevent_the_start(
    run: Run, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("LORIKEET_PROT", "1")
    monkeypatch.setenv("LORIKEET_POOL", "no spaces")  # ends the command after the warning
    code, printed = run(command)
    warning, refusal = printed.splitlines()
    assert code == 2
    assert warning == (
        "lorikeet: unknown environment variable LORIKEET_PROT is ignored; did you mean "
        "LORIKEET_PORT?"
    )
    assert "--pool" in refusal


def test_a_taken_port_is_named_before_anything_is_started(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, printed = run("up", "--port", str(port))
    assert code == 2
    assert f"can't listen on 127.0.0.1:{port}: Address already in use" in printed


@pytest.fixture(scope="module")
def locked_redis() -> Iterator[str]:
    """Host and port of a Redis that wants a password."""
    server = start_redis(None)
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(b"CONFIG SET requirepass sesame\r\n")
        assert connection.recv(100) == b"+OK\r\n"
    yield f"127.0.0.1:{server.port}"
    server.stop()


@pytest.mark.parametrize(
    "words",
    [
        *(["api", "--port", "0"], ["worker", "m"], ["control"], ["up", "m", "--port", "0"]),
        *(["health", "worker"], ["keys", "list"]),
    ],
    ids=" ".join,
)
def test_a_redis_that_wants_a_password_is_named(
    run: Run, locked_redis: str, words: list[str]
) -> None:
    code, printed = run(*words, "--redis-url", f"redis://{locked_redis}/0")
    assert code == 1
    [line] = printed.splitlines()
    assert line.startswith(f"lorikeet: the Redis at {locked_redis} needs a password: ")
    assert "set LORIKEET_REDIS_URL to redis://[USER]:PASSWORD@HOST:PORT/0" in line


@pytest.mark.parametrize(
    "words",
    [
        ["keys", "list"],
        ["control"],
        ["worker", "m"],
        ["api", "--port", "0"],
        ["up", "m", "--port", "0"],
    ],
)
def test_redis_out_of_reach_ends_with_one_line_and_code_1(run: Run, words: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        url = f"redis://127.0.0.1:{unused.getsockname()[1]}"
    code, printed = run(*words, "--redis-url", url)
    assert code == 1
    assert printed.startswith(f"lorikeet: no Redis at {url}")
    assert printed.count("\n") == 1


def test_without_redis_nothing_is_healthy(run: Run) -> None:
    code, printed = run("health", "worker", "--redis-url", "redis://127.0.0.1:1/0")
    assert (code, "Redis is out of reach" in printed) == (1, True)


@pytest.mark.parametrize("words", [["--api-key", "k" * 16], ["--allow-anonymous"]])
@pytest.mark.parametrize("command", [["api"], ["up", "m"]])
def test_the_network_is_served_with_a_key_or_if_anonymous_access_is_allowed(
    run: Run, command: list[str], words: list[str]
) -> None:
    network = ["--host", "0.0.0.0", "--port", "0", "--redis-url", "redis://127.0.0.1:1"]
    code, printed = run(*command, *words, *network)
    assert code == 1
    assert printed.startswith("lorikeet: no Redis at")


@pytest.mark.parametrize(
    ("error", "code"), [(SettingsError("bad"), 2), (RedisUnavailable("bad"), 1)]
)
def test_an_error_from_a_task_group_ends_with_one_line(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: LorikeetError, code: int
) -> None:
    raise_in_app(monkeypatch, ExceptionGroup("tasks", [ExceptionGroup("inner", [error])]))
    assert run("status") == (code, "lorikeet: bad\n")


def test_an_unexpected_error_is_not_hidden_by_an_expected_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    raise_in_app(monkeypatch, ExceptionGroup("tasks", [SettingsError("bad"), KeyError("fault")]))
    with pytest.raises(ExceptionGroup):
        cli.main()


def raise_in_app(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def app(**_: object) -> None:
        raise error

    monkeypatch.setattr(cli, "app", app)


ROW = re.compile(
    r"(?P<flags>-[a-z], )?--[a-z][a-z0-9-]*(/--no-[a-z0-9-]+)?( (?P<value>[A-Z]+))?"
    r"|(?P<argument>[A-Z]+(\.\.\.)?)"
    r"|(?P<command>[a-z-]+)"
)
"""Names in the left column. A value is a word in capitals, and a switch has none."""
USAGE = re.compile(
    r"Usage: lorikeet[a-z -]* \[OPTIONS\]"
    r"(( [A-Z]+| \[[A-Z]+\])(\.\.\.)?)*( COMMAND \[ARGS\]\.\.\.)?"
)


def help_of(words: tuple[str, ...], columns: int) -> list[str]:
    # The runner ignores the variable COLUMNS.
    shown = lorikeet(*words, "--help", terminal_width=columns, prog_name="lorikeet")
    return shown.splitlines()


def names(lines: list[str]) -> list[str]:
    """The left column of all sections. Its rows are indented by two spaces."""
    start = next(index for index, line in enumerate(lines) if line in SECTIONS)
    rows = [line for line in lines[start:] if re.match(r"  \S", line)]
    return [re.split(r"  +", line.strip())[0] for line in rows]


SECTIONS = ("Arguments:", "Options:")


@pytest.mark.parametrize("words", [words[1:] for words, _ in commands()], ids=" ".join)
def test_pages_use_one_notation_fit_into_60_columns_and_cut_nothing(words: tuple[str, ...]) -> None:
    lines, narrow, wide = (help_of(words, columns) for columns in (80, 60, 200))
    assert USAGE.fullmatch(lines[0]), lines[0]
    assert [name for name in names(lines) if not ROW.fullmatch(name)] == []
    assert [line for line in narrow if len(line) > 60 and len(line.split()) > 1] == []
    assert "…" not in "".join(narrow)
    assert "".join("".join(narrow).split()) == "".join("".join(wide).split())


def test_defaults_are_shown() -> None:
    text = " ".join(" ".join(help_of(("bench",), 80)).split())
    assert "--requests N Total number of requests. [default: 64]" in text
    assert "before those of --input. [default: 0]" in text
    assert "no token times are measured. [default: --stream]" in text
    assert "Port to listen on; 0 picks a free port. [default: 23333]" in " ".join(
        " ".join(help_of(("up",), 80)).split()
    )


@pytest.mark.parametrize("command", ["up", "api", "worker"])
def test_help_shows_the_common_flags_and_help_all_shows_every_one(command: str) -> None:
    common = " ".join(help_of((command,), 80))
    everything = lorikeet(command, "--help-all", terminal_width=80, prog_name="lorikeet")
    flags = {
        option
        for words, each in commands()
        if words == ("lorikeet", command)
        for parameter in each.params
        for option in (*parameter.opts, *parameter.secondary_opts)
        if option.startswith("--")
    }
    shown = {flag for flag in flags if re.search(rf"{flag}\b(?!-)", common)}
    assert len(shown) <= 26
    assert {"--redis-url", "--pool"} <= shown
    assert [flag for flag in flags if not re.search(rf"{flag}\b(?!-)", everything)] == []
    assert (
        f"with {len([f for f in flags if not f.startswith('--no-')]) - len(shown)} more" in common
    )


@pytest.mark.parametrize(
    "words", [("chat",), ("adapters",), ("adapters", "load"), ("jobs",), ("bench",)]
)
def test_clients_name_the_variable_of_the_url(words: tuple[str, ...]) -> None:
    text = " ".join(" ".join(help_of(words, 80)).split())
    assert "By default that in LORIKEET_URL, else that of the last `lorikeet login`" in text
