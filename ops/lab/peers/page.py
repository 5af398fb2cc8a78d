"""Writes the page of ops/docs that shows the outcomes of the peers' tests."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from ops.lab.peers.outcomes import Outcome, Reason, Verdict, read_outcomes, read_review, verdict_of
from ops.lab.peers.suites import SUITES, Suite

PAGE = Path(__file__).parents[2] / "docs" / "peers-tests.md"
_HEAD = """# Tests of other servers

Other servers test their APIs with clients. These tests were run, unchanged, against a Lorikeet that
serves the demo model under the names that the tests ask for. `python -m ops.lab.peers` downloads
the sources, runs the tests of one suite and generates this page.

- **artefact**: the test expects something that isn't part of an API, such as the text of the model
  that the peer downloads, its tokens, or its own name for a field or an error.
- **refused on purpose**: Lorikeet refuses the request, or answers otherwise by decision. If two
  peers disagree, the documentation of OpenAI or Anthropic decides.
- **failed**: nobody has explained the failure.

"""


def write_page() -> None:
    """Write the page from the stored outcomes."""
    PAGE.write_text(page())


def page() -> str:
    """Return the page as Markdown."""
    found = {
        name: [
            (outcome, *verdict_of(outcome, read_review(name))) for outcome in read_outcomes(name)
        ]
        for name in SUITES
    }
    lines = [_line(["suite", *Verdict]), _line(["---"] * (len(Verdict) + 1))]
    for name, rows in found.items():
        counts = Counter(verdict for _, verdict, _ in rows)
        lines.append(_line([SUITES[name].title, *(str(counts[each]) for each in Verdict)]))
    parts = [_HEAD, *(f"{line}\n" for line in lines)]
    parts += [_section(SUITES[name], rows) for name, rows in found.items() if rows]
    return "".join(parts)


def _section(suite: Suite, rows: Iterable[tuple[Outcome, Verdict, Reason | None]]) -> str:
    """Return the tests of a suite that didn't pass, with their reasons."""
    package = suite.package
    origin = f" (`{package.name}` {package.version})" if package else ""
    lines = [f"\n## {suite.title}{origin}\n\n{suite.scope}\n"]
    lines += [_line(["verdict", "why", "tests"]), _line(["---"] * 3)]
    groups: dict[tuple[Verdict, str], list[str]] = {}
    for outcome, verdict, reason in rows:
        if verdict in (Verdict.FAILED, Verdict.ARTEFACT, Verdict.REFUSED):
            why = reason.why if reason else _escaped(outcome.error)
            groups.setdefault((verdict, why), []).append(outcome.test)
    for (verdict, why), tests in sorted(groups.items(), key=lambda group: group[0][0]):
        lines.append(_line([verdict, why, _names(tests)]))
    return "\n".join([*lines, ""])


def _names(tests: Iterable[str]) -> str:
    """Return the names of test functions. The number of tests follows if there are several."""
    counts = Counter(test.partition("[")[0].rpartition("/")[2] for test in tests)
    return ", ".join(f"`{name}`" + (f" ({n})" if n > 1 else "") for name, n in counts.items())


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*").replace("_", "\\_")
