"""The files, modules, commands, flags, variables, URLs and messages in the documentation exist."""

import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import CodeType

import pytest
from command_line import commands

from api.app import create_app
from ops.commands.clients.client_options import URL_VARIABLE
from shared.settings import ENV_PREFIX, ApiSettings, ControlSettings, UpSettings, WorkerSettings

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "ops" / "docs"
MANUAL = [ROOT / "README.md", ROOT / "ops" / "demo" / "README.md", *sorted(DOCS.rglob("*.md"))]
DECISIONS = ROOT / "ops" / "decisions"
OTHERS = [
    ROOT / "CHANGELOG.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "ops" / "bench" / "results" / "README.md",
    *sorted(DECISIONS.glob("*.md")),
]
COMING_FROM = DOCS / "coming-from.md"
TROUBLESHOOTING = DOCS / "troubleshooting.md"
OF_OTHER_PROGRAMS = {
    *("--build", "--pull", "--scale", "--volumes", "--wait"),  # Docker Compose
    *("--appendonly", "--maxmemory", "--maxmemory-policy", "--requirepass"),  # Redis
    *("--key", "--prometheus"),  # python -m ops.lab.dashboard
    *("--baseline", "--level", "--quick", "--results", "--rounds", "--vllm"),  # make bench
    *("--gguf", "--llama"),  # python -m ops.lab.bench int8
    *("--colocate", "--rollout-external", "--rollout-external-engine-addrs"),  # miles
    *("--commit", "--minutes", "--model-size", "--out"),  # python -m ops.lab.bench gpu
}
"""Flags of other programs that the manual names."""
URL = re.compile(
    r"(?:(?<=\s)|(?<=23333)|^)/(?:(?:v1|api)/[\w/-]+|health|ready|metrics|docs|openapi\.json)\b"
)


def by_name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def text_of(path: Path) -> str:
    """Return a page without the commands and flags of other servers."""
    text = path.read_text()
    if path == COMING_FROM:
        rows = [line.partition(" | ")[2] if line[:1] == "|" else line for line in text.splitlines()]
        text = "\n".join(row for row in rows if not row.startswith(("lmdeploy ", "vllm ")))
    return text


def blocks(text: str) -> list[str]:
    """Return the fenced blocks of shell commands."""
    return re.findall(r"^```(?:bash|console)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def spans(text: str) -> list[str]:
    """Return the inline code of a page, without fenced blocks."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.M))


def command_lines(text: str) -> Iterator[str]:
    """Yield command lines, without prompts, comments and continuations, then all inline code."""
    for block in blocks(text):
        for line in block.replace("\\\n", " ").splitlines():
            yield re.sub(r"\s#\s.*", "", line.removeprefix("$ "))
    yield from spans(text)


def headings(path: Path) -> set[str]:
    """Return the anchors that GitHub generates."""
    found = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in found}


def broken_links(page: Path) -> Iterator[str]:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if not re.match(r"https?:", target):
            name, _, anchor = target.partition("#")
            file = page.parent / name if name else page
            if not file.exists() or (anchor and anchor not in headings(file)):
                yield target


def missing_paths(page: Path) -> Iterator[str]:
    for span in spans(page.read_text()):
        if re.fullmatch(r"(api|shared|worker|ops|tests)(/[\w.-]+)+/?", span):
            if not (ROOT / span).exists():
                yield span
        elif re.fullmatch(r"[\w-]+\.(py|lua|cpp|h)", span) and span not in source_names():
            yield span


def missing_modules(page: Path) -> Iterator[str]:
    for module in re.findall(r"python -m (ops(?:\.\w+)*)", page.read_text()):
        path = ROOT / module.replace(".", "/")
        if not path.with_suffix(".py").exists() and not (path / "__init__.py").exists():
            yield module


def unknown_variables(page: Path) -> Iterator[str]:
    classes = (ApiSettings, WorkerSettings, ControlSettings, UpSettings)
    known = {ENV_PREFIX + name.upper() for cls in classes for name in cls.model_fields}
    found = set(re.findall(rf"\b{ENV_PREFIX}[A-Z_]+\b", page.read_text()))
    yield from found - known - {URL_VARIABLE}


@cache
def source_names() -> frozenset[str]:
    tops = ("api", "shared", "worker", "ops", "tests")
    return frozenset(path.name for top in tops for path in (ROOT / top).rglob("*.*"))


def test_the_index_of_decisions_has_every_title_and_status() -> None:
    index = " ".join((DECISIONS / "README.md").read_text().split())
    for page in sorted(DECISIONS.glob("0*.md")):
        number, text = page.name[:4], page.read_text()
        title, status = re.match(rf"# {number} (.*)\n\nStatus: ([^.\n]+)", text).groups()
        assert f"[{number}]({page.name}), {status}: **{title}.**" in index


def test_the_readme_links_every_page() -> None:
    readme = (ROOT / "README.md").read_text()
    assert [
        page.name for page in DOCS.glob("*.md") if f"(ops/docs/{page.name})" not in readme
    ] == []


FLAGS = {
    " ".join(words): {"--help", "-h"}.union(
        *((*parameter.opts, *parameter.secondary_opts) for parameter in command.params)
    )
    for words, command in commands()
}
"""Flags of every command by its full name."""


def unknown_commands(page: Path) -> Iterator[str]:
    for line in command_lines(text_of(page)):
        words = line.strip().removeprefix(".venv/bin/").split()
        if words[:1] != ["lorikeet"] or words[1:2] in ([], ["COMMAND"]):
            continue
        name = " ".join(words[:3]) if " ".join(words[:3]) in FLAGS else " ".join(words[:2])
        flags = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
        if name not in FLAGS or not flags <= FLAGS[name]:
            yield line


def unknown_flags(page: Path) -> Iterator[str]:
    known = OF_OTHER_PROGRAMS.union(*FLAGS.values())
    for span in spans(text_of(page)):
        if re.match(r"--[a-z]", span) and re.split(r"[\s=:.]", span)[0] not in known:
            yield span


@cache
def served_paths() -> re.Pattern[str]:
    """Return an expression that matches the paths of the HTTP API."""
    app = create_app(ApiSettings())
    open_paths = [path for _, path in app.state.guards.operations]
    paths = [*app.state.openapi(with_keys=False)["paths"], *open_paths]
    return re.compile("|".join(re.sub(r"{\w+}", "[^/]+", path) for path in paths))


def unknown_urls(page: Path) -> Iterator[str]:
    for line in command_lines(text_of(page)):
        yield from (url for url in URL.findall(line) if not served_paths().fullmatch(url))


EVERYWHERE = (broken_links, missing_paths, missing_modules, unknown_variables)
"""Checks of all pages. Those of the manual follow."""


@pytest.mark.parametrize(
    "find", [*EVERYWHERE, unknown_commands, unknown_flags, unknown_urls], ids=lambda f: f.__name__
)
def test_what_the_pages_name_exists(find: Callable[[Path], Iterator[str]]) -> None:
    pages = [*MANUAL, *OTHERS] if find in EVERYWHERE else MANUAL
    assert [f"{by_name(page)}: {found}" for page in pages for found in find(page)] == []


def constants(value: object) -> Iterator[str]:
    """Yield every string of compiled code, and the literal parts of f-strings."""
    if isinstance(value, str):
        yield value
    parts = value.co_consts if isinstance(value, CodeType) else value
    if isinstance(parts, tuple | frozenset):
        for part in parts:
            yield from constants(part)


@cache
def sources() -> dict[Path, str]:
    tops = ("api/**/*.py", "shared/**/*.py", "worker/**/*.py", "ops/**/*.py", "shared/**/*.lua")
    return {file: file.read_text() for top in tops for file in ROOT.glob(top)}


@cache
def strings(file: Path) -> str:
    """Return every string of a file, one per line."""
    text = sources()[file]
    return text if file.suffix == ".lua" else "\n".join(constants(compile(text, file, "exec")))


def is_in_sources(message: str) -> bool:
    # Only files with all of its words are compiled.
    words = message.split()
    files = (file for file, text in sources().items() if all(word in text for word in words))
    return any(message in strings(file) for file in files)


def symptoms() -> list[str]:
    rows = [line for line in TROUBLESHOOTING.read_text().splitlines() if line.startswith("| ")]
    cells = [row.split(" | ")[0] for row in rows]
    return [span for cell in cells for span in spans(cell) if not span.startswith("/")]


def test_quoted_messages_exist_in_the_sources() -> None:
    parts = [part.strip(" :,;") for symptom in symptoms() for part in symptom.split("...")]
    assert [part for part in parts if not is_in_sources(part)] == []


def test_the_tests_that_prove_reliability_exist() -> None:
    text = (ROOT / "ops" / "docs" / "reliability.md").read_text()
    named = re.findall(r"\[([^\]]+)\]\((?:\.\./\.\./)(tests/[^)]+\.py)\)", text)
    assert len(named) > 30
    for words, path in named:
        assert f"def test_{words.replace(' ', '_')}(" in (ROOT / path).read_text(), words
