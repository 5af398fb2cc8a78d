"""Queries of GET /v1/jobs."""

import pytest
from starlette.datastructures import QueryParams

from api.jobs.own_jobs import ListQuery, read_list_query
from shared.errors import ErrorCode, JobFailed
from shared.protocol.ids import JobId
from shared.protocol.jobs import JobState

DONE, QUEUED, DEAD = JobState.DONE, JobState.QUEUED, JobState.DEAD


def read(text: str) -> ListQuery:
    return read_list_query(QueryParams(text))


def test_an_empty_query_asks_for_the_newest_jobs() -> None:
    assert read("") == ListQuery(limit=20, after=None, states=None, model=None)


@pytest.mark.parametrize(
    "text",
    [
        "state=done,queued,dead",
        "state=done&state=queued&state=dead",
        "state=done,queued&state=dead",
    ],
)
def test_states_are_separated_by_commas_or_repeated(text: str) -> None:
    assert read(text).states == {DONE, QUEUED, DEAD}


def test_the_id_of_a_completion_is_a_cursor_too() -> None:
    assert read("after=chatcmpl-a1&limit=100&model=x%2Fy") == ListQuery(
        limit=100, after=JobId("a1"), model="x/y"
    )


@pytest.mark.parametrize(
    ("text", "param"),
    [
        *((f"limit={bad}", "limit") for bad in ("0", "101", "-1", "1.0", "", "x", "²", "9" * 50)),
        *((f"state={bad}", "state") for bad in ("", "Done", "done,", "ended", "done, dead")),
    ],
)
def test_an_invalid_parameter_is_refused_by_name(text: str, param: str) -> None:
    with pytest.raises(JobFailed) as failed:
        read(text)
    assert (failed.value.error.code, failed.value.error.param) == (ErrorCode.INVALID_VALUE, param)


def test_an_unknown_parameter_is_refused() -> None:
    with pytest.raises(JobFailed, match=r"unknown parameter: stat; .* state, model, limit, after"):
        read("stat=done")
