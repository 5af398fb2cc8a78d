import orjson
from running_jobs import EOS_ID, ascii_ids, text_stream

from worker.engine.request import TokenLogprobs
from worker.jobs.token_logprobs import describe_position, describe_prompt, score_prompt


def test_a_position_has_the_chosen_token_and_the_likeliest_ones() -> None:
    logprobs = TokenLogprobs(-1.5, ((ord("b"), -0.5), (ord("a"), -1.5)))
    position = describe_position(ord("a"), logprobs, text_stream())
    chosen = position.chosen
    assert (chosen.token, chosen.logprob, chosen.bytes) == ("a", -1.5, (ord("a"),))
    assert [(token.token, token.logprob) for token in position.top] == [("b", -0.5), ("a", -1.5)]


def test_the_offset_is_the_length_of_the_text_before_the_token() -> None:
    stream = text_stream(["abcd"])
    stream.replay(ascii_ids("abc"))  # held back, because it may start the stop string
    assert describe_position(ord("x"), TokenLogprobs(0.0, ()), stream).offset == 3


def test_a_special_token_has_a_name_and_no_bytes() -> None:
    position = describe_position(EOS_ID, TokenLogprobs(-2.0, ()), text_stream())
    assert (position.chosen.token, position.chosen.bytes) == ("<eos>", None)


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
