"""Each command on the pages is run by a test, is parsed here, or has a reason why it is neither.

`lorikeet` commands are parsed by the command line itself, `make` targets by make, and `curl`
commands must send a JSON body to an existing route. `test_docs.py` checks names inside the text.
"""

import json
import re
import shlex
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from command_line import lorikeet
from typer.core import TyperCommand

from api.app import create_app
from ops.commands.flags import spread_adapters
from shared.settings import ApiSettings

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "ops" / "docs"
PAGES = [
    *(ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"),
    *(ROOT / "ops" / "demo" / "README.md", *sorted(DOCS.rglob("*.md"))),
]
RUN_BY = {
    "training-to-served.md": "tests/e2e/test_training_page.py",
    "backup.md": "tests/e2e/test_backup.py",
}
"""Pages whose commands for this machine are run by a test, as they are written."""
NOT_RUN = {
    "docker": "needs Docker",
    "kind": "needs Docker",
    "sh": "writes files for Docker Compose; tests/ops/docker reads them",
    "kubectl": "needs a cluster",
    "helm": "needs a cluster; tests/ops/helm renders the same charts",
    "redis-cli": "isn't part of Lorikeet; tests/shared/store reads the same keys",
    "redis-server": "isn't part of Lorikeet; the tests start one with the same options",
    "pip": "installs from the internet; `make setup` installs the same packages",
    "pipx": "installs from the internet; tests/ops/packaging installs the wheel",
    "vllm/bin/pip": "installs from the internet; `make vllm` installs the same packages",
    "npm": "installs from the internet; `make clients` installs such packages",
    "apt-get": "installs from the internet",
    "git": "changes the checkout",
    "pre-commit": "changes the checkout",
    "sudo": "changes the machine",
    "cmake": "builds another program",
    "claude": "another program; its requests are recorded in tests/clients",
    "codex": "another program; its requests are recorded in tests/clients",
    "cn": "another program; its requests are recorded in tests/clients",
    "open-webui": "another program; its requests are recorded in tests/clients",
    "litellm": "another program; tests/clients uses its library",
    "llm": "another program; tests/clients runs it",
    "prometheus": "another program",
    "promtool": "another program",
    "lmdeploy": "another server",
    "vllm": "another server",
    "lorax-launcher": "another server",
}
"""Programs whose commands aren't run, with the reason."""
SHELL = {"export", "alias", "cat", "cd", "echo", ".", "mv", "cp", "mkdir", "tar", "jq", "base64"}
"""Commands of the shell that do nothing with Lorikeet."""
PROMETHEUS = "http://127.0.0.1:9090"
ASSIGNMENT = re.compile(r"[A-Z_]+=.*", re.DOTALL)
OPERATORS = {"|", "&&", ";", ">", "<", "&"}


@dataclass(frozen=True)
class Command:
    page: Path
    words: Sequence[str]

    def __str__(self) -> str:
        return f"{self.page.name}: {shlex.join(self.words)}"

    @property
    def program(self) -> str:
        return self.words[0].removeprefix(".venv/bin/")


def blocks(page: Path) -> list[str]:
    return re.findall(r"^```(?:bash|console)\n(.*?)^```", page.read_text(), re.DOTALL | re.M)


def commands_of(page: Path) -> Iterator[Command]:
    """Yield the commands in a page's blocks, without comments, assignments and redirections."""
    for block in blocks(page):
        is_session = block.startswith("$ ")
        text = re.sub(r"<<'(\w+)'.*?^\1$", "", block, flags=re.DOTALL | re.MULTILINE)
        held = ""
        for line in text.replace("\\\n", " ").splitlines():
            if is_session and not held and not line.startswith("$ "):
                continue  # output
            held += line.removeprefix("$ ") + "\n"
            try:
                words = shlex.split(held, comments=True)
            except ValueError:  # a quote isn't closed yet
                continue
            held = ""
            yield from (Command(page, each) for each in simple(words))
        assert not held, f"{page.name}: {held}"


def simple(words: Sequence[str]) -> Iterator[list[str]]:
    """Yield the simple commands of a line. What follows `>` or `<` isn't one."""
    current: list[str] = []
    takes = True
    for word in [*words, ";"]:
        if word not in OPERATORS:
            current += [word] if takes else []
            continue
        if takes and word in "><":
            takes = False
            continue
        while current and ASSIGNMENT.fullmatch(current[0]):
            del current[0]
        if current:
            yield current
        current, takes = [], True


COMMANDS = [command for page in PAGES for command in commands_of(page)]


def of(program: str) -> list[Command]:
    return [command for command in COMMANDS if command.program == program]


def test_each_program_is_checked_or_has_a_reason() -> None:
    known = {"lorikeet", "curl", "make", "python", *SHELL, *NOT_RUN}
    assert {command.program for command in COMMANDS} - known == set()
    assert NOT_RUN.keys() - {command.program for command in COMMANDS} == set(), "no longer named"


def test_the_tests_that_run_whole_pages_exist() -> None:
    for page, path in RUN_BY.items():
        assert page in (ROOT / path).read_text()
        assert (DOCS / page).is_file()


@pytest.fixture
def parsing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the command line parse commands, but not execute them."""
    owner = next(cls for cls in TyperCommand.__mro__ if "invoke" in vars(cls))
    monkeypatch.setattr(owner, "invoke", lambda *_: None)


@pytest.mark.parametrize("command", of("lorikeet"), ids=str)
def test_the_command_line_accepts_each_command(parsing: None, command: Command) -> None:
    lorikeet(*spread_adapters(command.words[1:]))


def test_an_unknown_flag_and_a_missing_argument_would_be_found(parsing: None) -> None:
    for words in (["up", "--wrokers", "2"], ["adapters", "load", "sql"], ["serv"]):
        with pytest.raises(SystemExit) as end:
            lorikeet(*words)
        assert end.value.code == 2


@pytest.mark.parametrize("command", of("make"), ids=str)
def test_make_knows_each_target(command: Command) -> None:
    words = [*command.words, "--dry-run", "--question"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert "No rule" not in done.stderr
    assert done.returncode in (0, 1), done.stderr


@pytest.mark.parametrize("command", of("python"), ids=str)
def test_each_module_of_ours_exists(command: Command) -> None:
    if command.words[1] == "-m":
        assert find_spec(command.words[2])
    else:
        assert f"as {command.words[1]}" in command.page.read_text(), "the page has the program"


@cache
def routes() -> list[tuple[str, re.Pattern[str]]]:
    """Return the methods and paths of all routes."""
    found = create_app(ApiSettings()).state.guards.operations
    return [(method, re.compile(re.sub(r"{[^}]+}", ".+", path))) for method, path in found]


def option(words: Sequence[str], *names: str) -> str | None:
    return next((words[i + 1] for i, word in enumerate(words) if word in names), None)


@pytest.mark.parametrize("command", of("curl"), ids=str)
def test_each_request_has_a_route_and_a_readable_body(command: Command) -> None:
    words = command.words
    (url,) = [word for word in words if word.startswith(("http", "$URL"))]
    if url.startswith(PROMETHEUS):
        return
    body = option(words, "-d", "--data", "--data-binary", "--json")
    method = option(words, "-X", "--request") or (
        "GET" if body is None and "-F" not in words else "POST"
    )
    path = re.sub(r"^/pools/[^/]+", "", urlsplit(url.replace("$URL", "http://host")).path) or "/"
    assert any(m == method and p.fullmatch(path) for m, p in routes()), (method, path)
    if body and not body.startswith("@"):
        assert isinstance(json.loads(body), dict)
