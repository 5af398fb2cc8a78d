"""The report of an evaluation: failed cases below headings."""

import pytest

from ops.evaluate.cases import Case, Outcome
from ops.evaluate.report import BAD, DIFFERING, MAX_SHOWN, print_report

ROLES = {"a@1": "current", "a@2": "candidate"}


def outcomes(*cases: str) -> list[Outcome]:
    """Return the outcomes of cases such as `10`: the current version is good, the candidate bad."""
    return [
        Outcome(
            case=Case(line=line, body={}, is_good=bool, wanted="x"),
            version=version,
            answer="",
            is_good=digit == "1",
        )
        for line, case in enumerate(cases, 1)
        for version, digit in zip(ROLES, case, strict=True)
    ]


def report(capsys: pytest.CaptureFixture[str], *cases: str) -> list[str]:
    """Return the headings and the lines of cases in the order in which they are printed."""
    print_report(outcomes(*cases), ROLES)
    lines = capsys.readouterr().out.splitlines()
    return [line.partition(":")[0] for line in lines if line.startswith((DIFFERING, BAD, "line"))]


def test_cases_on_which_versions_differ_and_cases_that_all_fail_have_headings(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert report(capsys, "00", "11", "10", "01", "00") == [
        *(DIFFERING, "line 3", "line 4"),
        *(BAD, "line 1", "line 5"),
    ]
    assert report(capsys, "00") == [BAD, "line 1"]
    assert report(capsys, "01") == [DIFFERING, "line 1"]
    assert report(capsys, "11") == []


def test_cases_that_differ_are_shown_before_others_if_there_are_too_many(
    capsys: pytest.CaptureFixture[str],
) -> None:
    shown = report(capsys, "00", *["10"] * (MAX_SHOWN + 1))
    assert shown == [DIFFERING, *(f"line {number}" for number in range(2, MAX_SHOWN + 2))]
