"""Bodies of responses about jobs."""

from dataclasses import replace

from queue_support import make_job

from api.jobs.own_jobs import job_body, list_body
from shared.protocol.answers import AnswerSpec
from shared.protocol.ids import AdapterVersion, JobId
from shared.protocol.jobs import JobState
from shared.protocol.results import Choice, FinishReason, Result, Usage
from shared.store.views.job_view import JobPage, JobView

USAGE = Usage(prompt_tokens=1, completion_tokens=2)
VIEW = JobView(
    id=JobId("a"),
    state=JobState.DONE,
    model="m",
    version=AdapterVersion("m@1"),
    tenant="t",
    enqueued_ms=5,
    started_ms=6,
    ended_ms=7,
    position=None,
    try_=1,
    worker=None,
    error=None,
    usage=USAGE,
    spec=AnswerSpec.of(make_job(id=JobId("a"))),
)
CHOICE = Choice(text="hello", finish=FinishReason.LENGTH, ids=(1, 2))
RESULT = Result(job=VIEW.id, state=JobState.DONE, choices=(CHOICE,), usage=USAGE)


def test_a_finished_job_has_the_fields_of_its_answer() -> None:
    body = job_body(VIEW, RESULT)
    assert (body["id"], body["object"], body["created"]) == ("a", "job", 0)
    assert body["choices"] == [
        {"index": 0, "text": "hello", "logprobs": None, "finish_reason": "length"}
    ]


def test_a_job_without_an_answer_has_no_choices() -> None:
    failed = Result(job=VIEW.id, state=JobState.FAILED)
    assert job_body(replace(VIEW, state=JobState.FAILED), failed)["choices"] is None
    assert job_body(replace(VIEW, state=JobState.RUNNING))["choices"] is None


def test_a_page_says_whether_there_are_more_jobs() -> None:
    views = [replace(VIEW, id=JobId(name)) for name in "ab"]
    page = list_body(JobPage(jobs=views, last_id=JobId("c"), has_more=True))
    assert [job["id"] for job in page["data"]] == ["a", "b"]
    assert (page["object"], page["first_id"], page["last_id"]) == ("list", "a", "c")
    assert page["has_more"]
    assert "choices" not in page["data"][0]


def test_an_empty_page_has_no_ids() -> None:
    assert list_body(JobPage()) == {
        "object": "list",
        "data": [],
        "first_id": None,
        "last_id": None,
        "has_more": False,
    }
