"""Outcomes of tests, the review that explains those that didn't pass, and the files with both."""

import re
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from tempfile import gettempdir

import orjson

FOLDER = Path(__file__).parent
OUTCOMES = FOLDER / "outcomes"
"""Folder with the stored outcomes, one file per suite."""
REVIEW = FOLDER / "review.toml"

TEMPORARY = re.compile(rf"{re.escape(gettempdir())}/(?:[^\s/,:'\"]+/)*")


class Verdict(StrEnum):
    """Conclusion about Lorikeet from the outcome of a test."""

    PASSED = "passed"
    ARTEFACT = "artefact"
    """The test expects something that isn't part of an API, such as the text of one model."""
    REFUSED = "refused on purpose"
    """Lorikeet answers differently from the peer on purpose."""
    SKIPPED = "skipped"
    """The suite itself skipped the test."""
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How one test ended."""

    test: str
    """The test's id in pytest: file, name and parameters."""
    outcome: str
    """Outcome that pytest reports: passed, failed or skipped."""
    line: str = ""
    """Statement in the test's own code that failed; empty if none did."""
    error: str = ""
    """First line of the error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Reason why some tests of a suite don't pass. A person has written it into the review."""

    verdict: Verdict
    why: str
    """The reason as one sentence."""
    tests: tuple[str, ...]
    """Patterns for the ids of the tests that the reason covers. Only * is special in a pattern."""
    errors: tuple[str, ...]
    """The failing statement or the error must contain one of these texts.

    The reason doesn't explain other errors of the same tests.
    """

    def explains(self, outcome: Outcome) -> bool:
        """Return whether this reason explains the failure `outcome`."""
        found = f"{outcome.line}\n{outcome.error}"
        is_known = any(error in found for error in self.errors)
        return is_known and any(_pattern(test).fullmatch(outcome.test) for test in self.tests)


def verdict_of(outcome: Outcome, reasons: Iterable[Reason]) -> tuple[Verdict, Reason | None]:
    """Return the verdict on an outcome, and the reason that explains a failure, if any."""
    if outcome.outcome != "failed":
        return Verdict(outcome.outcome), None
    found = next((reason for reason in reasons if reason.explains(outcome)), None)
    return (found.verdict, found) if found else (Verdict.FAILED, None)


def read_review(suite: str, file: Path = REVIEW) -> list[Reason]:
    """Read from the review why tests of a suite don't pass."""
    return [
        Reason(
            verdict=Verdict(row["verdict"]),
            why=row["why"],
            tests=tuple(row.get("tests", ["*"])),
            errors=tuple(row.get("errors", [""])),
        )
        for row in tomllib.loads(file.read_text()).get(suite, [])
    ]


def read_outcomes(suite: str, folder: Path = OUTCOMES) -> list[Outcome]:
    """Read the stored outcomes of a suite, which are sorted by test."""
    path = folder / f"{suite}.json"
    return [Outcome(**row) for row in orjson.loads(path.read_bytes())] if path.exists() else []


def store_outcomes(suite: str, found: Sequence[Outcome], folder: Path = OUTCOMES) -> None:
    """Store outcomes. They replace all earlier outcomes of tests in the same test files."""
    files = {_file(outcome) for outcome in found}
    kept = [each for each in read_outcomes(suite, folder) if _file(each) not in files]
    rows = sorted((*kept, *found), key=lambda outcome: outcome.test)
    shown = [
        {name: _without_folders(text) for name, text in asdict(row).items() if text} for row in rows
    ]
    folder.mkdir(parents=True, exist_ok=True)
    content = orjson.dumps(shown, option=orjson.OPT_INDENT_2)
    (folder / f"{suite}.json").write_bytes(content + b"\n")


def _without_folders(text: str) -> str:
    """Leave out temporary folders, whose names differ in each run."""
    return TEMPORARY.sub("", text)


def _file(outcome: Outcome) -> str:
    return outcome.test.partition("::")[0]


def _pattern(test: str) -> re.Pattern[str]:
    return re.compile(".*".join(map(re.escape, test.split("*"))), re.DOTALL)
