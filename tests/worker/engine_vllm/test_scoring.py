"""Requests for scores run in vLLM as parts, a few at a time, and have one output each."""

from dataclasses import replace

from engine_requests import PLAIN, make_request

from shared.errors import ErrorCode, JobError
from shared.protocol.ids import AdapterVersion
from shared.protocol.results import FinishReason
from worker.engine.request import Request, StepOutput, TokenLogprobs
from worker.engine_vllm.scoring import MAX_STARTED, ScoringRequests

LABELS = (7, 5, 7)
FAULT = JobError(code=ErrorCode.INTERNAL, message="x")


def scoring_request(name: str, labels: tuple[int, ...] = LABELS, version: str = "a@1") -> Request:
    sampling = replace(PLAIN, logprobs=0, logprob_token_ids=labels)
    return make_request(
        name, sampling=sampling, version=AdapterVersion(version), max_tokens=1, is_scoring=True
    )


def output(part: Request) -> StepOutput:
    """Return the output of a part, whose log-probability is that of its only allowed token."""
    (token,) = part.sampling.allowed_token_ids
    return StepOutput(
        request_id=part.id,
        token_id=token,
        finish=FinishReason.LENGTH,
        logprobs=TokenLogprobs(-float(token), ()),
        num_cached_tokens=3,
    )


def test_each_label_is_sampled_by_a_part_and_all_of_them_have_one_output() -> None:
    scoring, request = ScoringRequests(), scoring_request("r")
    scoring.add(request)
    parts = list(scoring.start())
    assert [part.sampling.allowed_token_ids for part in parts] == [(7,), (5,)]
    assert all(part.prompt_ids == request.prompt_ids for part in parts)
    assert all(part.sampling.logprob_token_ids == () for part in parts)
    other = StepOutput(request_id=make_request("other").id, token_id=1)
    assert list(scoring.joined([output(parts[1]), other])) == [other]
    (whole,) = scoring.joined([output(parts[0])])
    assert (whole.request_id, whole.finish) == (request.id, FinishReason.LENGTH)
    assert whole.logprobs is not None
    assert dict(whole.logprobs.top) == {7: -7.0, 5: -5.0}


def test_a_request_without_labels_is_its_own_part() -> None:
    scoring, request = ScoringRequests(), scoring_request("r", labels=())
    scoring.add(request)
    assert list(scoring.start()) == [request]
    scored = StepOutput(request_id=request.id, prompt_logprobs=(TokenLogprobs(-1.0, ()),))
    assert list(scoring.joined([scored])) == [scored]


def test_the_first_error_of_a_part_ends_the_request_and_later_outputs_of_parts_are_dropped() -> (
    None
):
    scoring = ScoringRequests()
    scoring.add(scoring_request("r"))
    parts = list(scoring.start())
    failed = StepOutput(request_id=parts[0].id, error=FAULT)
    (whole,) = scoring.joined([failed, output(parts[1])])
    assert (whole.request_id, whole.error) == ("r", FAULT)


def test_few_requests_start_at_a_time_in_order_and_aborted_ones_make_room() -> None:
    scoring = ScoringRequests()
    names = [str(number) for number in range(MAX_STARTED)]
    for name in names:
        scoring.add(scoring_request(name))
    parts = list(scoring.start())
    assert [part.id for part in parts[::2]] == [f"{name}:7" for name in names[: MAX_STARTED // 2]]
    assert scoring.num_waiting == MAX_STARTED // 2
    assert list(scoring.start()) == []
    assert scoring.abort(make_request("0").id) == ["0:7", "0:5"]
    assert list(scoring.joined([output(parts[0])])) == [output(parts[0])]
    assert len(list(scoring.start())) == 2


def test_waiting_requests_of_a_removed_adapter_are_returned() -> None:
    scoring = ScoringRequests()
    gone, kept = scoring_request("gone"), scoring_request("kept", version="b@1")
    for request in (gone, kept):
        scoring.add(request)
    assert scoring.versions == {"a@1", "b@1"}
    assert scoring.remove(AdapterVersion("a@1")) == [gone]
    assert scoring.versions == {"b@1"}
