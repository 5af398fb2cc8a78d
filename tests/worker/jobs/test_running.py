"""Running jobs, their choices, and log-probabilities as clients receive them."""

from dataclasses import replace

import orjson
from queue_support import make_job, tokens
from running_jobs import (
    EOS_ID,
    add_job,
    ascii_ids,
    claim,
    make_choice,
    output,
    outputs,
    text_stream,
)

from shared.errors import ErrorCode, JobError
from shared.protocol.events import Tokens
from shared.protocol.jobs import JobState, SamplingParams
from shared.protocol.results import FinishReason
from worker.engine.request import StepOutput, TokenLogprobs
from worker.jobs.running import RunningJob, RunningJobs
from worker.jobs.running_choice import PendingTokens, Reports, RunningChoice
from worker.jobs.token_logprobs import describe_position, describe_prompt, score_prompt

ERROR = JobError(code=ErrorCode.INTERNAL, message="it failed")


def finish(job: RunningJob, number: int, text: str = "a") -> None:
    """Complete one choice of a job."""
    choice = job.choices[number]
    for each in outputs(choice, text[:-1]):
        choice.accept(each)
    choice.accept(output(choice, text[-1], FinishReason.LENGTH))


def test_the_first_end_of_a_job_stays() -> None:
    job = add_job(RunningJobs(), try_=3)
    job.conclude(JobState.FAILED, ERROR)
    job.conclude(JobState.DONE)
    assert (job.end.job, job.end.try_) == (job.id, 3)
    assert (job.end.state, job.end.error) == (JobState.FAILED, ERROR)


def test_usage_counts_all_output_tokens_and_the_cached_tokens_of_each_prompt_once() -> None:
    jobs = RunningJobs()
    two_prompts = make_job(sampling=SamplingParams(seed=1, n=2), prompts=("hello", "world"))
    job = RunningJob(claim(two_prompts))
    jobs.add(job)
    jobs.add_choices(job, [make_choice(i, prompt="hello") for i in range(4)])
    job.num_prompt_tokens = 10
    for number, choice in enumerate(job.choices):
        choice.accept(output(choice, "a", num_cached_tokens=number + 1))
    job.conclude(JobState.DONE)
    assert job.end.usage.prompt_tokens == 10
    assert job.end.usage.completion_tokens == 4
    assert job.end.usage.cached_tokens == 1 + 3


def test_the_result_has_the_finished_choices_only() -> None:
    job = add_job(RunningJobs(), n=3)
    finish(job, 0, "abc")
    finish(job, 2, "xy")
    job.choices[1].accept(output(job.choices[1], "m"))
    job.conclude(JobState.CANCELLED, ERROR)
    result = job.result()
    assert (result.job, result.state, result.error) == (job.id, JobState.CANCELLED, ERROR)
    assert [choice.text for choice in result.choices] == ["abc", "xy"]
    assert result.choices[0].ids == tuple(ascii_ids("abc"))
    assert result.usage.completion_tokens == 6


def test_jobs_may_be_removed_while_they_are_iterated_but_not_a_later_claim() -> None:
    jobs = RunningJobs()
    earlier, *_ = [add_job(jobs) for _ in range(3)]
    later = RunningJob(claim(earlier.job, try_=2))
    jobs.add(later)
    jobs.remove(earlier)
    assert jobs.get(later.id) is later
    for job in jobs:
        jobs.remove(job)
    assert len(jobs) == 0


def test_subscribers_are_notified_when_jobs_finish_and_not_when_they_are_removed() -> None:
    jobs, counts = RunningJobs(), []
    one, two, _ = add_job(jobs), add_job(jobs), add_job(jobs)
    jobs.subscribe(lambda: counts.append(len(jobs)))
    jobs.remove(one)
    assert counts == []
    jobs.finish(two)
    jobs.clear()
    assert counts == [1, 0]


LIKELY = TokenLogprobs(-0.5, ((ord("x"), -0.25),))


def accept(choice: RunningChoice, text: str) -> None:
    for each in outputs(choice, text):
        choice.accept(each)


def published(text: str, ids: str, finish: FinishReason | None = None) -> Tokens:
    """Return the tokens that an earlier try has published."""
    return tokens(make_job(), 0, ascii_ids(ids), text, finish=finish)


def test_a_stop_token_is_shown_if_the_text_includes_what_ends_it_and_the_end_token_never() -> None:
    for includes_stop, text in ((False, "ab"), (True, "abc")):
        choice = make_choice(includes_stop=includes_stop)
        accept(choice, "ab")
        choice.accept(output(choice, "c", FinishReason.STOP))
        assert (choice.ids, choice.text) == (ascii_ids("abc"), text)
        assert choice.finish is FinishReason.STOP
    choice = make_choice(stop=("bye!",))
    accept(choice, "by")
    choice.accept(output(choice, EOS_ID, FinishReason.STOP, logprobs=LIKELY))
    assert choice.ids == [*ascii_ids("by"), EOS_ID]
    assert (choice.text, choice.logprobs) == ("by", [])


def test_a_choice_that_reports_ids_publishes_its_prompt_once_and_logprobs_of_its_end() -> None:
    claimed, prompt = claim(), tuple(ascii_ids("hi"))
    choice = make_choice(reports=Reports(prompt_ids=True, end_logprobs=True))
    choice.accept(output(choice, "a", logprobs=LIKELY))
    first = choice.unpublished.take(claimed, 0)
    choice.accept(output(choice, EOS_ID, FinishReason.STOP, logprobs=LIKELY))
    last = choice.unpublished.take(claimed, 0)
    assert (first.prompt_ids, last.prompt_ids) == (prompt, ())
    assert len(last.logprobs) == len(last.ids) == 1
    assert choice.full_checkpoint(claimed).prompt_ids == prompt
    resumed = make_choice(reports=Reports(prompt_ids=True, end_logprobs=True))
    resumed.restore(first)
    resumed.accept(output(resumed, EOS_ID, FinishReason.STOP, logprobs=LIKELY))
    assert resumed.unpublished.take(claimed, 0) == last
    assert resumed.full_checkpoint(claimed) == choice.full_checkpoint(claimed)


def test_cached_tokens_are_those_of_the_prompt_at_the_first_token() -> None:
    choice = make_choice(prompt="hello")
    choice.accept(output(choice, "a", num_cached_tokens=3))
    choice.accept(output(choice, "b", num_cached_tokens=6))
    assert choice.num_cached_tokens == 3
    restarted = make_choice(prompt="hello")
    restarted.accept(output(restarted, "a", num_cached_tokens=9))
    assert restarted.num_cached_tokens == 5


def test_logprobs_are_described_before_the_token_is_added() -> None:
    choice = make_choice()
    choice.accept(output(choice, "a", logprobs=LIKELY))
    choice.accept(output(choice, "b", logprobs=LIKELY))
    assert [(p.chosen.token, p.offset) for p in choice.logprobs] == [("a", 0), ("b", 1)]
    assert choice.unpublished.logprobs == choice.unsaved.logprobs == tuple(choice.logprobs)


def test_scores_of_the_prompt_are_published_and_saved_once_and_restored() -> None:
    claimed, reports = claim(), Reports(scored_top=1)
    choice = make_choice(prompt="hi", reports=reports)
    likely = TokenLogprobs(-0.5, ((ord("x"), -0.25),), rank=3)
    choice.accept(output(choice, "a", prompt_logprobs=(likely,)))
    event, saved = (pending.take(claimed, 0) for pending in (choice.unpublished, choice.unsaved))
    expected = event.prompt_scores
    assert saved.prompt_scores == expected
    assert orjson.loads(expected)[1]["105"] == {"logprob": -0.5, "rank": 3, "decoded_token": "i"}
    assert event.prompt_logprobs == ()
    choice.accept(output(choice, "b"))
    assert choice.unpublished.take(claimed, 0).prompt_scores == ""
    resumed = make_choice(prompt="hi", reports=reports)
    resumed.restore(event)
    resumed.accept(output(resumed, "b"))
    assert resumed.unpublished.take(claimed, 0).prompt_scores == ""
    assert resumed.full_checkpoint(claimed) == choice.full_checkpoint(claimed)
    assert resumed.prompt_scores == expected


def test_a_choice_without_tokens_finishes_with_the_scores_of_its_prompt() -> None:
    reports = Reports(prompt_ids=True, echoed_top=1, scored_top=0)
    choice = make_choice(prompt="hi", max_tokens=0, reports=reports)
    assert not choice.is_at_limit
    scores = (replace(LIKELY, rank=2),)
    end = StepOutput(
        request_id=choice.request_id, finish=FinishReason.LENGTH, prompt_logprobs=scores
    )
    choice.accept(end)
    assert (choice.ids, choice.finish, choice.logprobs) == ([], FinishReason.LENGTH, [])
    event = choice.unpublished.take(claim(), 0)
    assert (event.index, event.ids, event.finish) == (0, (), FinishReason.LENGTH)
    assert [p.chosen.logprob for p in event.prompt_logprobs] == [None, -0.5]
    assert orjson.loads(event.prompt_scores)[1]["105"]["rank"] == 2
    assert event.prompt_ids == tuple(ascii_ids("hi"))
    resumed = make_choice(prompt="hi", max_tokens=0, reports=reports)
    resumed.restore(event)
    assert not resumed.is_at_limit
    assert resumed.finish is FinishReason.LENGTH
    assert not resumed.unpublished
    assert resumed.prompt_logprobs == choice.prompt_logprobs
    assert resumed.prompt_scores == choice.prompt_scores


def test_a_restored_choice_continues_the_published_text_and_publishes_only_what_is_new() -> None:
    choice = make_choice(stop=("lo",))
    choice.restore(published("he", "hel"))
    assert not choice.unpublished
    assert not choice.unsaved
    accept(choice, "p")
    event = choice.unpublished.take(claim(), 0)
    assert (event.index, event.text, choice.text) == (3, "lp", "help")
    finished = make_choice(stop=("lo!",))
    finished.restore(published("hello", "hello", FinishReason.LENGTH))
    assert (finished.text, finished.finish) == ("hello", FinishReason.LENGTH)
    at_limit = make_choice(stop=("lo!",), max_tokens=5)
    at_limit.restore(published("hel", "hello"))
    at_limit.finish_at_limit()
    assert (at_limit.text, at_limit.finish) == ("hello", FinishReason.LENGTH)
    assert at_limit.unpublished.take(claim(), 0).finish is FinishReason.LENGTH
    pending = PendingTokens(5)
    assert not pending
    pending.add([], "", FinishReason.LENGTH, None)
    assert pending, "a finish without tokens is pending"


def test_a_full_checkpoint_has_all_tokens_and_leaves_none_unsaved() -> None:
    choice = make_choice(1)
    accept(choice, "abc")
    choice.unsaved.take(claim(), 1)
    accept(choice, "d")
    checkpoint = choice.full_checkpoint(claim())
    assert (checkpoint.choice, checkpoint.index, checkpoint.text) == (1, 0, "abcd")
    assert not choice.unsaved
    accept(choice, "e")
    assert choice.unsaved.take(claim(), 1).index == 4


def test_a_position_has_the_chosen_token_and_the_likeliest_ones_and_its_offset() -> None:
    logprobs = TokenLogprobs(-1.5, ((ord("b"), -0.5), (ord("a"), -1.5)))
    position = describe_position(ord("a"), logprobs, text_stream())
    chosen = position.chosen
    assert (chosen.token, chosen.logprob, chosen.bytes) == ("a", -1.5, (ord("a"),))
    assert [(token.token, token.logprob) for token in position.top] == [("b", -0.5), ("a", -1.5)]
    stream = text_stream(["abcd"])
    stream.replay(ascii_ids("abc"))  # held back, because it may start the stop string
    assert describe_position(ord("x"), TokenLogprobs(0.0, ()), stream).offset == 3
    special = describe_position(EOS_ID, TokenLogprobs(-2.0, ()), text_stream()).chosen
    assert (special.token, special.bytes) == ("<eos>", None)


def test_the_first_token_of_a_prompt_has_no_logprob() -> None:
    logprobs = [TokenLogprobs(-1.0, ((ord("x"), -0.1),)), TokenLogprobs(-2.0, ())]
    positions = describe_prompt(ascii_ids("abc"), logprobs, text_stream(), num_top=1)
    assert [p.chosen.token for p in positions] == ["a", "b", "c"]
    assert [p.chosen.logprob for p in positions] == [None, -1.0, -2.0]
    assert [p.offset for p in positions] == [0, 1, 2]
    assert [len(p.top) for p in positions] == [0, 1, 0]


def test_a_prompt_is_scored_from_its_second_token_on() -> None:
    likely = ((ord("x"), -0.1), (ord("b"), -2.5), (EOS_ID, -3.0))
    logprobs = [
        TokenLogprobs(-2.5, likely, rank=3),  # as likely as another token
        TokenLogprobs(-9.0, likely, rank=80),
    ]
    table = text_stream().token_bytes
    first, second, third = orjson.loads(score_prompt(ascii_ids("abc"), logprobs, table, num_top=3))
    assert first is None
    assert list(second.items()) == [
        (str(ord("b")), {"logprob": -2.5, "rank": 2, "decoded_token": "b"}),
        (str(ord("x")), {"logprob": -0.1, "rank": 1, "decoded_token": "x"}),
        (str(EOS_ID), {"logprob": -3.0, "rank": 3, "decoded_token": "<eos>"}),
    ]
    assert third[str(ord("c"))] == {"logprob": -9.0, "rank": 80, "decoded_token": "c"}
    assert len(third) == 4
    only_own = orjson.loads(score_prompt(ascii_ids("abc"), logprobs, table, num_top=0))
    assert [position and [*position] for position in only_own] == [None, ["98"], ["99"]]
    assert score_prompt(ascii_ids("a"), [], table, num_top=5) == "[null]"


def test_a_stop_string_or_token_is_published_with_the_finish() -> None:
    choice = make_choice(stop=("lo", "xx"))
    for character in "hello":
        accept(choice, character)
    assert choice.unpublished.take(claim(), 0).stop == "lo"
    hidden = make_choice(reports=Reports(stop_tokens=frozenset({ord("!")})))
    hidden.accept(output(hidden, "!", FinishReason.STOP))
    assert hidden.stop == ord("!")
    at_end = make_choice(reports=Reports(stop_tokens=frozenset({ord("!")})))
    at_end.accept(output(at_end, "?", FinishReason.STOP))
    assert at_end.stop is None, "an end-of-sequence token isn't the client's"
    restored = make_choice(stop=("lo",))
    restored.restore(replace(published("hello", "hel", FinishReason.STOP), stop="lo"))
    assert restored.stop == "lo"
