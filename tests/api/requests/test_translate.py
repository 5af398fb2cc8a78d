"""Translation of requests into jobs, and of their headers into how these are enqueued."""

import inspect
from dataclasses import replace
from typing import Any

import pytest
from starlette.datastructures import Headers
from translated_jobs import ADMISSION, HI, chat, completion

from api.requests.request_headers import RequestHeaders, enqueue_options, read_request_headers
from api.requests.translate import chat_job, parse_chat, parse_completion
from api.schema.chat import MAX_KWARGS_BYTES, RESERVED
from shared.errors import ErrorCode, JobError, JobFailed
from shared.protocol.answers import AnswerSpec
from shared.protocol.codec import decode_answer_spec, decode_job, encode_answer_spec, encode_job
from shared.protocol.enqueue import EnqueueOptions, IdempotencyKey
from shared.protocol.jobs import Endpoint, PromptEnd
from shared.reasoning_form import ReasoningForm


def test_a_request_without_options_gets_openais_defaults() -> None:
    job = chat()
    assert job.endpoint is Endpoint.CHAT
    assert job.messages == ({"role": "user", "content": "hi"},)
    assert job.prompts == ()
    sampling = job.sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.min_p) == (1, 1, 0, 0)
    assert (sampling.max_tokens, sampling.stop, sampling.n) == (None, (), 1)
    assert not sampling.ignore_eos
    assert sampling.seed == ADMISSION.random_seed


def test_null_selects_the_default() -> None:
    others = ("max_completion_tokens", "logit_bias", "stop", "user", "stream", "stream_options")
    assert chat(**dict.fromkeys((*AS_SENT, *others))) == chat()


def test_fields_that_an_adapter_may_set_are_listed_if_the_client_omits_them() -> None:
    may_set = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
    assert chat().sampling.left_out == completion().sampling.left_out == may_set
    assert chat(temperature=1, top_k=-1).sampling.left_out == (
        "top_p",
        "min_p",
        "repetition_penalty",
    )
    assert chat(**dict.fromkeys(may_set, 1)).sampling.left_out == ()


LORAX = {"type": "json_object", "schema": {"type": "object", "required": ["a"]}}
ORDERED = {"type": "object", "properties": {"z": {"const": "é"}, "a": {"type": "null"}}}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "x", "schema": ORDERED}}
ORDERED_TEXT = '{"type":"object","properties":{"z":{"const":"é"},"a":{"type":"null"}}}'
AS_SENT = {
    "temperature": 0,
    "top_p": 0.5,
    "top_k": 4,
    "min_p": 0.1,
    "max_tokens": 9,
    "n": 3,
    "seed": 1,
    "ignore_eos": True,
    "presence_penalty": 0.5,
    "frequency_penalty": -1,
    "repetition_penalty": 1.2,
    "min_tokens": 4,
}


@pytest.mark.parametrize(
    ("fields", "name", "value"),
    [
        *(({name: value}, name, value) for name, value in AS_SENT.items()),
        ({"logit_bias": {"5": -100, "7": 1.5}}, "logit_bias", ((5, -100), (7, 1.5))),
        ({"seed": 0}, "seed", 0),
        ({"top_k": -1}, "top_k", 0),
        ({"max_completion_tokens": 7}, "max_tokens", 7),
        ({"max_tokens": 5, "max_completion_tokens": 7}, "max_tokens", 7),
        ({"stop": "x"}, "stop", ("x",)),
        ({"stop": ["a", "b"]}, "stop", ("a", "b")),
        ({"logprobs": True}, "logprobs", 0),
        ({"logprobs": True, "top_logprobs": 7}, "logprobs", 7),
        ({"logprobs": False, "top_logprobs": 0}, "logprobs", None),
        ({"response_format": {"type": "json_object"}}, "json_schema", '{"type":"object"}'),
        ({"response_format": LORAX}, "json_schema", '{"type":"object","required":["a"]}'),
        ({"response_format": SCHEMA}, "json_schema", ORDERED_TEXT),
    ],
)
def test_fields_of_a_chat_are_translated_for_the_worker(
    fields: dict[str, Any], name: str, value: object
) -> None:
    assert getattr(chat(**fields).sampling, name) == value


def test_a_negative_seed_becomes_a_valid_one() -> None:
    assert 0 <= chat(seed=-1).sampling.seed < 2**63


def test_a_schema_that_is_too_large_is_refused_by_name() -> None:
    named = {"name": "x", "schema": {"const": "é" * 70_000}}
    with pytest.raises(JobFailed, match="131072 bytes") as failed:
        chat(response_format={"type": "json_schema", "json_schema": named})
    assert failed.value.error.param == "response_format.json_schema.schema"


@pytest.mark.parametrize(
    ("given", "prompts"),
    [
        ([1, 2, 3], ((1, 2, 3),)),
        (["hi"], ("hi",)),
        ([[1, 2, 3]], ((1, 2, 3),)),
        (["a", "b"], ("a", "b")),
        ([[1], [2, 3]], ((1,), (2, 3))),
    ],
)
def test_a_prompt_may_be_token_ids_and_several_may_be_in_a_list(
    given: object, prompts: object
) -> None:
    job = completion(prompt=given, n=2)
    assert job.prompts == prompts
    assert job.num_choices == 2 * len(job.prompts)


def test_a_completion_has_16_tokens_unless_an_echo_needs_none() -> None:
    job = completion(echo=True, max_tokens=0, logprobs=2, prompt=[1] * 30, n=2)
    assert (job.sampling.max_tokens, job.sampling.logprobs, job.cost) == (0, 2, 30)
    assert (job.endpoint, job.echo) == (Endpoint.COMPLETIONS, True)
    for echo in (True, None):
        job = completion(echo=echo)
        assert (job.sampling.max_tokens, job.echo) == (16, bool(echo))


@pytest.mark.parametrize("fields", [{}, {"echo": False}, {"echo": None, "prompt_logprobs": 1}])
def test_without_an_echo_an_answer_needs_a_token(fields: dict[str, Any]) -> None:
    with pytest.raises(JobFailed) as caught:
        completion(max_tokens=0, **fields)
    error = caught.value.error
    assert (error.status, error.param) == (400, "max_tokens")
    assert "echo: true" in error.message


@pytest.mark.parametrize(
    ("tier", "priority"),
    [("priority", 10), ("flex", -10), ("auto", 0), ("default", 0), (None, 0)],
)
def test_the_service_tier_sets_the_priority(tier: str | None, priority: int) -> None:
    for job in (chat(service_tier=tier), completion(service_tier=tier)):
        assert (job.priority, job.service_tier) == (priority, tier)


def test_the_cost_estimates_the_tokens_of_prompt_and_answers() -> None:
    long = [{"role": "user", "content": "x" * 400}]
    assert chat(messages=long, max_tokens=50, n=2).cost == 100 + 2 * 50
    assert chat(messages=long).cost == 100 + 256
    assert completion(prompt=[1] * 30, max_tokens=10).cost == 40
    assert completion(prompt=[[1] * 30, [1] * 20], max_tokens=10, n=2).cost == 50 + 4 * 10


def test_the_cost_is_limited_by_the_context() -> None:
    huge = [{"role": "user", "content": "x" * 1_000_000}]
    assert chat(messages=huge, max_tokens=999_999).cost == ADMISSION.max_model_len
    assert chat(messages=huge, max_tokens=999_999, n=3).cost == ADMISSION.max_model_len + 2


ANSWER = {"role": "assistant", "content": "so far"}
CONTINUED = {"messages": [HI, ANSWER], "continue_final_message": True}


def failure(**fields: Any) -> JobError:
    with pytest.raises(JobFailed) as caught:
        chat(**fields)
    return caught.value.error


def nested(depth: int) -> Any:
    return {"a": nested(depth - 1)} if depth else 1


def test_variables_of_the_template_reach_the_job() -> None:
    for kwargs in ({"a": [1], "b": None}, nested(16)):
        assert chat(chat_template_kwargs=kwargs).template_kwargs == kwargs
    assert chat(chat_template_kwargs={}).template_kwargs is None
    assert chat().template_kwargs is None


def test_an_effort_is_a_variable_and_turns_thinking_on_or_off() -> None:
    assert chat(reasoning_effort="high").template_kwargs == {
        "reasoning_effort": "high",
        "enable_thinking": True,
        "thinking": True,
    }
    none = chat(reasoning_effort="none").template_kwargs
    assert none == {"reasoning_effort": "none", "enable_thinking": False, "thinking": False}
    own = {"reasoning_effort": "low", "enable_thinking": False, "thinking": False}
    assert chat(reasoning_effort="max", chat_template_kwargs=own).template_kwargs == {
        "reasoning_effort": "max",
        "enable_thinking": False,
        "thinking": False,
    }


def test_lmdeploys_enable_thinking_is_a_variable_of_the_template() -> None:
    assert chat(enable_thinking=False).template_kwargs == {"enable_thinking": False}
    assert chat(enable_thinking=None).template_kwargs is None
    with_others = chat(enable_thinking=True, chat_template_kwargs={"a": 1})
    assert with_others.template_kwargs == {"a": 1, "enable_thinking": True}
    for kwargs in ({"enable_thinking": True}, {"enable_thinking": None}):
        same = chat(enable_thinking=True, chat_template_kwargs=kwargs)
        assert same.template_kwargs == {"enable_thinking": True}
    assert chat(enable_thinking=False, reasoning_effort="low").template_kwargs == {
        "reasoning_effort": "low",
        "enable_thinking": False,
        "thinking": True,
    }


KWARGS = "chat_template_kwargs"


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"reasoning_effort": "huge"}, "reasoning_effort", "reasoning_effort"),
        ({"enable_thinking": "yes"}, "enable_thinking", "enable_thinking"),
        *(
            (
                {"enable_thinking": False, KWARGS: {"enable_thinking": other}},
                "enable_thinking",
                KWARGS,
            )
            for other in (True, 0, "no")
        ),
        *(({KWARGS: {name: 1}}, KWARGS, repr(name)) for name in sorted(RESERVED)),
        *(
            ({KWARGS: kwargs}, KWARGS, KWARGS)
            for kwargs in (nested(17), {"a": "x" * MAX_KWARGS_BYTES}, [], "a")
        ),
        (
            *({**CONTINUED, "add_generation_prompt": True}, "continue_final_message"),
            "add_generation_prompt",
        ),
        ({"chat_template": "{{ messages }}"}, "chat_template", "isn't supported"),
    ],
)
def test_options_that_a_template_cannot_have_are_refused_by_name(
    fields: dict[str, Any], param: str, words: str
) -> None:
    error = failure(**fields)
    assert (error.status, error.param) == (400, param)
    assert words in error.message


def test_all_parameters_of_transformers_are_reserved() -> None:
    from transformers import PreTrainedTokenizerBase

    names = inspect.signature(PreTrainedTokenizerBase.apply_chat_template).parameters
    # Templates read the documents as a variable.
    assert names.keys() - {"kwargs", "documents"} <= RESERVED


def test_the_prompt_ends_as_the_request_says() -> None:
    assert chat().prompt_end is PromptEnd.ANSWER
    assert chat(add_generation_prompt=True).prompt_end is PromptEnd.ANSWER
    assert chat(add_generation_prompt=False).prompt_end is PromptEnd.NOTHING
    assert chat(**CONTINUED).prompt_end is PromptEnd.MESSAGE
    assert chat(**CONTINUED, add_generation_prompt=False).prompt_end is PromptEnd.MESSAGE


def test_the_last_message_is_echoed_if_the_answer_has_its_role() -> None:
    assert chat(**CONTINUED, echo=True).echoed == "so far"
    assert chat(messages=[HI, ANSWER], echo=True).echoed == "so far"
    assert chat(echo=True, add_generation_prompt=False).echoed == "hi"
    assert chat(echo=True).echoed == ""
    assert chat(**CONTINUED).echoed == ""


def test_the_answers_specification_has_what_renders_the_reasoning() -> None:
    request = parse_chat({"model": "m", **CONTINUED, "echo": True, "include_reasoning": False})
    job = chat_job(request, replace(ADMISSION, reasoning=ReasoningForm.MISTRAL))
    spec = AnswerSpec.of(job)
    assert (spec.reasoning, spec.hides_reasoning) == (ReasoningForm.MISTRAL, True)
    assert spec.echoed == "so far"
    assert decode_answer_spec(encode_answer_spec(spec), spec.id) == spec


def test_a_job_is_readable_by_older_workers_unless_it_uses_new_fields() -> None:
    new = (b"template_kwargs", b"prompt_end", b"reasoning", b"echoed")
    assert not any(name in encode_job(chat()) for name in new)
    job = chat(**CONTINUED, reasoning_effort="low")
    assert decode_job(encode_job(job)) == job


def read(**headers: str) -> RequestHeaders:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return read_request_headers(Headers(named), max_deadline_s=60)


def test_headers_are_read_and_defaults_apply_without_them() -> None:
    assert read() == RequestHeaders(idempotency_key=None, is_continued=False, deadline_s=None)
    for key in ("a", "!~", "x" * 255, "b3f1c2d4-0000-4000-8000-000000000000"):
        assert read(idempotency_key=key) == RequestHeaders(idempotency_key=key)
    for sent, seconds in (("60", 60), ("0.25", 0.25), ("007", 7)):
        assert read(x_lorikeet_deadline_s=sent).deadline_s == seconds


@pytest.mark.parametrize(
    ("sent", "is_strict"),
    [
        (["handling=strict"], True),
        (["Handling=STRICT"], True),
        (['respond-async, wait=10 , handling="strict"; a=b, x'], True),
        (["respond-async", "handling = strict"], True),
        (['note="a, handling=lenient, \\" b", handling=strict'], True),
        (["handling=strict, handling=lenient"], True),
        (["handling=lenient, handling=strict"], False),
        (["handling=lenient"], False),
        (['note="handling=strict, handling=strict"'], False),
        (["handling=strictly"], False),
        (["no-handling=strict"], False),
        (["handling"], False),
        (['", handling=strict'], True),
        (['"\\' * 4000], False),
        ([""], False),
        ([], False),
    ],
)
def test_a_client_can_prefer_strict_handling(sent: list[str], is_strict: bool) -> None:
    headers = Headers(raw=[(b"prefer", value.encode()) for value in sent])
    assert read_request_headers(headers, max_deadline_s=60).is_strict is is_strict


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("Idempotency-Key", bad) for bad in ("", "x" * 256, "a b", "é", "a\tb", "\x7f")),
        *(("X-Lorikeet-On-Disconnect", bad) for bad in ("", "keep", "Continue", "continue,cancel")),
        *(("X-Lorikeet-Deadline-S", bad) for bad in ("", "0", "0.0", "-1", "60.1", "nan")),
        *(
            ("X-Lorikeet-Deadline-S", bad)
            for bad in ("inf", "5 s", "²", "1_0", "+1", ".5", "9" * 99)
        ),
    ],
)
def test_an_invalid_header_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(JobFailed) as failed:
        read(**{name.replace("-", "_"): value})
    error = failed.value.error
    assert (error.code, error.param) == (ErrorCode.INVALID_VALUE, name)
    assert error.message.startswith(f"{name}: ")


def test_the_error_names_the_limit_of_deadlines() -> None:
    with pytest.raises(JobFailed, match=r"at most 60, .* --deadline-s"):
        read(x_lorikeet_deadline_s="61")


BODY = {"model": "m", "prompt": "hi", "user": "é"}
KEYED = RequestHeaders(idempotency_key="k")
PATH = "/v1/completions"


def options(
    body: dict[str, Any] = BODY, headers: RequestHeaders = KEYED, path: str = PATH
) -> EnqueueOptions:
    return enqueue_options(headers, parse_completion(body), path=path, raw=body, weight=2.5)


def key(body: dict[str, Any] = BODY, path: str = PATH) -> IdempotencyKey:
    idempotency = options(body, path=path).idempotency
    assert idempotency is not None
    return idempotency


def test_a_request_without_a_key_has_a_job_of_its_own() -> None:
    assert options(headers=RequestHeaders()) == EnqueueOptions(weight=2.5)


CHANGES: list[dict[str, Any]] = [{"user": "e"}, {"stream": True}, {"n": 1}, {"prompt": ["hi"]}]


def test_every_field_and_the_endpoint_but_not_the_order_of_fields_changes_the_digest() -> None:
    assert key() == key(dict(reversed(BODY.items())))
    assert key().key == "k"
    others = [key({**BODY, **change}) for change in CHANGES]
    for other in (*others, key(path="/v1/chat/completions")):
        assert other.body_digest != key().body_digest


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"max_completion_tokens": 7}, 7),
        ({"max_tokens": 5, "max_completion_tokens": 7}, 7),
        ({"max_tokens": 0, "max_completion_tokens": 7}, 7),
    ],
)
def test_completions_take_the_newer_name_of_max_tokens(
    fields: dict[str, int], expected: int
) -> None:
    assert completion(**fields).sampling.max_tokens == expected
