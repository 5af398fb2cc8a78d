from dataclasses import replace

import orjson
from running_jobs import EOS_ID, ascii_ids, claim, make_choice, output, outputs

from shared.protocol.events import Tokens
from shared.protocol.ids import JobId
from shared.protocol.results import FinishReason
from worker.engine.request import StepOutput, TokenLogprobs
from worker.jobs.running_choice import PendingTokens, Reports, RunningChoice

LIKELY = TokenLogprobs(-0.5, ((ord("x"), -0.25),))


def accept(choice: RunningChoice, text: str) -> None:
    for each in outputs(choice, text):
        choice.accept(each)


def published(text: str, ids: str, finish: FinishReason | None = None) -> Tokens:
    """Return the tokens that an earlier try has published."""
    return Tokens(
        job=JobId("job"),
        try_=1,
        choice=0,
        index=0,
        ids=tuple(ascii_ids(ids)),
        text=text,
        finish=finish,
    )


def test_a_stop_token_is_shown_only_if_the_text_includes_what_ends_it() -> None:
    for includes_stop, text in ((False, "ab"), (True, "abc")):
        choice = make_choice(includes_stop=includes_stop)
        accept(choice, "ab")
        choice.accept(output(choice, "c", FinishReason.STOP))
        assert (choice.ids, choice.text) == (ascii_ids("abc"), text)
        assert choice.finish is FinishReason.STOP


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


def test_a_finish_without_tokens_is_pending() -> None:
    pending = PendingTokens(5)
    assert not pending
    pending.add([], "", FinishReason.LENGTH)
    assert pending
    assert pending.take(claim(), 0).finish is FinishReason.LENGTH


def test_an_end_of_sequence_token_is_an_id_without_text_or_logprobs() -> None:
    choice = make_choice(stop=("bye!",))
    accept(choice, "by")
    choice.accept(output(choice, EOS_ID, FinishReason.STOP, logprobs=LIKELY))
    assert choice.ids == [*ascii_ids("by"), EOS_ID]
    assert (choice.text, choice.logprobs) == ("by", [])


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


def test_a_restored_choice_continues_the_published_text_and_publishes_only_new_tokens() -> None:
    choice = make_choice(stop=("lo",))
    choice.restore(published("he", "hel"))
    assert not choice.unpublished
    assert not choice.unsaved
    accept(choice, "p")
    event = choice.unpublished.take(claim(), 0)
    assert (event.index, event.text, choice.text) == (3, "lp", "help")


def test_a_finished_choice_is_restored_with_the_text_that_its_finish_released() -> None:
    choice = make_choice(stop=("lo!",))
    choice.restore(published("hello", "hello", FinishReason.LENGTH))
    assert (choice.text, choice.finish) == ("hello", FinishReason.LENGTH)


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


def test_an_answer_at_its_limit_finishes_with_the_text_that_was_held_back() -> None:
    choice = make_choice(stop=("lo!",), max_tokens=5)
    choice.restore(published("hel", "hello"))
    choice.finish_at_limit()
    assert (choice.text, choice.finish) == ("hello", FinishReason.LENGTH)
    assert choice.unpublished.take(claim(), 0).finish is FinishReason.LENGTH
