"""The recipe that runs other servers' tests: its sources, its records, its review and its page."""

import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from ops.lab.peers import page
from ops.lab.peers.outcomes import (
    Outcome,
    Reason,
    Verdict,
    read_outcomes,
    read_review,
    store_outcomes,
    verdict_of,
)
from ops.lab.peers.shims.stubs import Parsed
from ops.lab.peers.sources import unpack
from ops.lab.peers.suites import SUITES, Package, Suite
from ops.lab.peers.tests_run import run_tests
from shared.cache_folder import cache_folder
from shared.errors import SettingsError

SUITE = Suite(
    title="a peer",
    package=Package(name="peer", version="1", sha256="", root="inner"),
    needed=("tests", "data/words.txt"),
    folder="tests",
    shim="stubs",
    files=("test_a.py",),
    marks="not slow",
    scope="",
)
TEST = """
import pytest

def test_passes():
    pass

@pytest.mark.skip
def test_skipped():
    pass

@pytest.mark.slow
def test_slow():
    raise AssertionError

def helper(number):
    assert number == 3, "the helper's words"

@pytest.mark.parametrize("number", [1])
def test_fails(number):
    helper(number)
"""
REASON = Reason(
    verdict=Verdict.ARTEFACT,
    why="The test counts.",
    tests=("test_a.py::test_fails[*",),
    errors=("other words", "helper's words"),
)


def failure(test: str, error: str) -> Outcome:
    return Outcome(test=test, outcome="failed", line="helper(number)", error=error)


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    folder = tmp_path / "peer-1" / "inner"
    (folder / "tests").mkdir(parents=True)
    (folder / "data").mkdir()
    (folder / "tests" / "test_a.py").write_text(TEST)
    (folder / "data" / "words.txt").write_text("words")
    (folder / "data" / "large.bin").write_text("not needed")
    return folder


def packed(sources: Path) -> Path:
    path = sources.parents[1] / "peer.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        archive.add(sources.parent, "peer-1")
    return path


def cloned(sources: Path) -> Path:
    user = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    for words in (("init", "-q"), ("add", "."), (*user, "commit", "-qm", "all")):
        subprocess.run(["git", *words], cwd=sources, check=True)
    return sources / ".git"


@pytest.mark.parametrize("source_of", [packed, cloned, lambda sources: sources])
def test_only_what_a_suite_needs_is_unpacked(
    source_of: "object", sources: Path, tmp_path: Path
) -> None:
    assert callable(source_of)
    target = tmp_path / "target"
    target.mkdir()
    unpack(SUITE, source_of(sources), target)
    found = sorted(str(path.relative_to(target)) for path in target.rglob("*") if path.is_file())
    assert found == ["data/words.txt", "tests/test_a.py"]


def test_a_source_without_the_tests_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(SettingsError, match="has no tests"):
        unpack(SUITE, tmp_path / "empty", tmp_path)


def test_outcomes_have_the_tests_own_statement_and_the_error(sources: Path) -> None:
    found = {each.test: each for each in run_tests(SUITE, sources, SUITE.files, None)}
    assert {test: outcome.outcome for test, outcome in found.items()} == {
        "test_a.py::test_passes": "passed",
        "test_a.py::test_skipped": "skipped",
        "test_a.py::test_fails[1]": "failed",
    }
    failed = found["test_a.py::test_fails[1]"]
    assert failed.line == "helper(number)"
    assert "the helper's words" in failed.error


@pytest.mark.parametrize(
    ("outcome", "verdict"),
    [
        (failure("test_a.py::test_fails[1]", "the helper's words"), Verdict.ARTEFACT),
        (failure("test_a.py::test_fails[1]", "a 500"), Verdict.FAILED),
        (failure("test_a.py::test_fails", "the helper's words"), Verdict.FAILED),
        (Outcome(test="test_a.py::test_fails[1]", outcome="passed"), Verdict.PASSED),
        (Outcome(test="test_a.py::test_skipped", outcome="skipped"), Verdict.SKIPPED),
    ],
)
def test_a_reason_holds_only_for_its_tests_and_errors(outcome: Outcome, verdict: Verdict) -> None:
    assert verdict_of(outcome, [REASON])[0] == verdict


def test_new_outcomes_replace_those_of_the_same_files(tmp_path: Path) -> None:
    def tests() -> Sequence[str]:
        return [outcome.test for outcome in read_outcomes("peer", tmp_path)]

    store_outcomes("peer", [Outcome(test=f"{f}.py::x", outcome="passed") for f in "ba"], tmp_path)
    assert tests() == ["a.py::x", "b.py::x"]
    store_outcomes("peer", [Outcome(test="a.py::y", outcome="passed")], tmp_path)
    assert tests() == ["a.py::y", "b.py::x"]


def test_stored_errors_have_no_temporary_folders(tmp_path: Path) -> None:
    error = f"file {tempfile.gettempdir()}/run-1/tests/test_a.py, line 3"
    store_outcomes("peer", [Outcome(test="a.py::x", outcome="failed", error=error)], tmp_path)
    assert read_outcomes("peer", tmp_path)[0].error == "file test_a.py, line 3"


def test_stubs_show_objects_as_attributes() -> None:
    parsed = Parsed.model_validate({"data": [{"embedding": [0.5]}], "id": "x"})
    assert (parsed.data[0].embedding, parsed.id) == ([0.5], "x")
    with pytest.raises(AttributeError):
        _ = parsed.usage


@pytest.mark.parametrize("suite", SUITES)
def test_every_reason_explains_a_stored_failure(suite: str) -> None:
    outcomes, reasons = read_outcomes(suite), read_review(suite)
    used = {found for _, found in (verdict_of(outcome, reasons) for outcome in outcomes)}
    assert [reason.why for reason in reasons if reason not in used] == []


def test_the_page_is_current() -> None:
    assert page.page() == page.PAGE.read_text(), "run `python -m ops.lab.peers`"


@pytest.mark.long
@pytest.mark.demo
@pytest.mark.timeout(600)
def test_some_tests_of_llama_cpp_run(tmp_path: Path) -> None:
    package = SUITES["llama-cpp"].package
    assert package
    if not (cache_folder() / "peers" / f"{package.name}-{package.version}.tar.gz").exists():
        pytest.skip("`python -m ops.lab.peers llama-cpp` hasn't downloaded the sources")
    command = [sys.executable, "-m", "ops.lab.peers", "llama-cpp", "--results", str(tmp_path)]
    subprocess.run([*command, "--only", "unit/test_tokenize.py"], check=True)
    verdicts = [
        verdict_of(outcome, read_review("llama-cpp"))[0]
        for outcome in read_outcomes("llama-cpp", tmp_path)
    ]
    assert verdicts.count(Verdict.PASSED) == 1
    assert len(verdicts) == 3
