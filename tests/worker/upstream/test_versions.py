"""The tested windows of Lorikeet's requirements, beside what is installed."""

from importlib.metadata import PackageNotFoundError
from typing import NoReturn

import pytest
from packaging.specifiers import SpecifierSet

from worker.upstream import versions
from worker.upstream.versions import BoundedPackage, bounded_packages, untested_note

REQUIREMENTS = [
    "transformers<5.26,>=5.24",
    "peft<0.22,>=0.17",
    "orjson>=3",
    "s3fs<1; extra == 's3'",
    "absent<2",
]
INSTALLED = {"transformers": "5.26.1", "peft": "0.21.2", "orjson": "3.10"}


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Installed versions by package, which a test may change."""
    found = dict(INSTALLED)

    def version(name: str) -> str:
        if name not in found:
            raise PackageNotFoundError(name)
        return found[name]

    monkeypatch.setattr(versions, "requires", lambda _: REQUIREMENTS)
    monkeypatch.setattr(versions, "version", version)
    return found


@pytest.mark.usefixtures("installed")
def test_only_ranges_with_an_upper_bound_are_windows() -> None:
    assert [each.name for each in bounded_packages()] == ["transformers", "peft", "absent"]


@pytest.mark.usefixtures("installed")
def test_one_line_names_what_is_untested_and_the_command_that_installs_what_is() -> None:
    assert untested_note() == (
        "Lorikeet wasn't tested with transformers 5.26.1 (tested: >=5.24,<5.26); "
        "`pip install 'transformers>=5.24,<5.26'` installs tested versions"
    )


def test_tested_versions_need_no_line(installed: dict[str, str]) -> None:
    installed["transformers"] = "5.25.0"
    assert untested_note() is None


@pytest.mark.parametrize(
    ("version", "is_tested"),
    [("5.23.9", False), ("5.24", True), ("5.25.3", True), ("5.26.0", False), ("5.25+cpu", True)],
)
def test_the_window_has_both_bounds(version: str, is_tested: bool) -> None:
    window = SpecifierSet(">=5.24,<5.26")
    assert BoundedPackage("transformers", version, window).is_tested is is_tested


def test_a_checkout_that_is_not_installed_has_no_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    def requires(name: str) -> NoReturn:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(versions, "requires", requires)
    assert untested_note() is None
