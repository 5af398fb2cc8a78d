"""The chat that asks for a document's relevance is rendered once, by the model's own template."""

from dataclasses import replace
from typing import Any

import pytest
import tokenizers
from queue_support import make_job
from tiny_tokenizers import EOS, byte_level_tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from shared.errors import ErrorCode, JobFailed
from shared.protocol.jobs import Endpoint, Job
from shared.protocol.scoring import ScoreKind, ScoringParams
from shared.reasoning_form import ReasoningForm
from worker.engine_simulated.text import SimulatedTokenizer
from worker.text.interface import EncodedPrompt, Scored
from worker.text.prompt_style import BASE_STYLE, PromptStyle
from worker.text.scored_prompts import SYSTEM, encode_scored
from worker.text.tokenizer import Tokenizer

RELEVANCE = ScoringParams(
    kind=ScoreKind.RELEVANCE,
    fields=("query", "documents"),
    firsts=("which?",),
    instruction="Find {it}",
)
QUESTION = "<Instruct>: Find {{it}}\n<Query>: {}\n<Document>: {}"
START, END = "<|im_start|>", EOS
NO_SYSTEM = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}"
    "{% endif %}[{{ m.content | trim }}]{% endfor %}answer:{{ '\n' }}"
)
IGNORES_SYSTEM = "{% for m in messages if m.role == 'user' %}[{{ m.content }}]{% endfor %}answer:"
THINKS = "{% for m in messages %}{{ m.content }}|{% endfor %}<|im_start|>assistant\n<think>\n"
HYBRID = (
    "{% for m in messages %}{{ m.content }}|{% endfor %}"
    "{% if enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}"
)


def tokenizer_of(template: str | None, reasoning: ReasoningForm | None = None) -> Tokenizer:
    hf = byte_level_tokenizer(chat_template=template)
    return Tokenizer(hf, vocab_size=len(hf), reasoning=reasoning)


def scoring_job(scoring: ScoringParams = RELEVANCE, *prompts: Any) -> Job:
    return make_job(endpoint=Endpoint.SCORES, prompts=prompts or ("a dog",), scoring=scoring)


async def texts_of(
    tokenizer: Tokenizer, job: Job, style: PromptStyle = BASE_STYLE
) -> tuple[list[str], Scored]:
    """Return the text of each prompt, and the common labels."""
    prompts = await encode_scored(tokenizer, job, style)
    (scored,) = {prompt.scored for prompt in prompts}
    assert scored is not None
    return [tokenizer.decode(prompt.ids) for prompt in prompts], scored


async def error_of(tokenizer: Tokenizer, job: Job) -> tuple[ErrorCode, str | None, str]:
    with pytest.raises(JobFailed) as caught:
        await encode_scored(tokenizer, job, BASE_STYLE)
    error = caught.value.error
    return error.code, error.param, error.message


@pytest.mark.parametrize(
    ("template", "before", "after"),
    [
        (
            byte_level_tokenizer().chat_template,
            f"{START}system\n{SYSTEM}{END}\n{START}user\n",
            f"{END}\n{START}assistant\n",
        ),
        (NO_SYSTEM, f"[{SYSTEM}\n\n", "]answer:\n"),
        (IGNORES_SYSTEM, f"[{SYSTEM}\n\n", "]answer:"),
        (HYBRID, f"{SYSTEM}|", "|<think>\n\n</think>\n\n"),
        (None, f"{SYSTEM}\n\n", "\n\nAnswer:"),
    ],
    ids=["usual", "no system", "ignores system", "hybrid", "no template"],
)
async def test_the_prompt_is_the_chat_of_the_models_template(
    template: str | None, before: str, after: str
) -> None:
    scoring = replace(RELEVANCE, firsts=("which?", "<Document>: {q}"))
    documents = ("a dog ", f"two{END}\n")
    tokenizer = tokenizer_of(template)
    texts, scored = await texts_of(tokenizer, scoring_job(scoring, *documents))
    pairs = zip(scoring.firsts, documents, strict=True)
    assert texts == [before + QUESTION.format(*pair) + after for pair in pairs]
    assert tokenizer.token_names(scored.labels) == ["y", "n"]


async def test_a_reasoning_that_the_template_begins_is_ended() -> None:
    job, form = scoring_job(), ReasoningForm.THINK
    (text,), _ = await texts_of(tokenizer_of(THINKS, form), job)
    assert text.endswith(f"{START}assistant\n<think>\n\n</think>\n\n")
    style = PromptStyle(templates={"default": THINKS}, reasoning=form)
    (adapters_text,), _ = await texts_of(tokenizer_of(None), job, style)
    assert adapters_text == text


async def test_an_adapters_own_template_renders_the_chat() -> None:
    style = PromptStyle(templates={"default": NO_SYSTEM})
    (text,), _ = await texts_of(tokenizer_of(None), scoring_job(), style)
    assert text == f"[{SYSTEM}\n\n{QUESTION.format('which?', 'a dog')}]answer:\n"


@pytest.mark.parametrize(
    "template", ["nothing", "{{ messages[-1].content }}{{ messages[-1].content }}"]
)
async def test_a_template_that_does_not_show_the_texts_once_is_refused(template: str) -> None:
    code, param, message = await error_of(tokenizer_of(template), scoring_job())
    assert (code, param) == (ErrorCode.INVALID_VALUE, "model")
    assert message.startswith("the model's chat template doesn't show the texts")


async def test_the_error_of_a_template_that_rejects_every_chat_is_the_clients() -> None:
    _, param, message = await error_of(
        tokenizer_of("{{ raise_exception('never') }}"), scoring_job()
    )
    assert (param, message) == ("messages", "the model's chat template rejects the messages: never")


@pytest.mark.parametrize(
    ("text", "words", "tokens"),
    [
        ("answer:", ["the", "you"], ["Ġthe", "Ġyou"]),
        ("answer:\n", ["the", "you"], ["the", "you"]),
        (START, ["the", "you"], ["the", "you"]),
        ("answer:", ["yes", "no"], ["y", "n"]),
    ],
    ids=["plain text", "new line", "special token", "space is a token"],
)
def test_labels_are_the_tokens_with_which_an_answer_begins(
    text: str, words: list[str], tokens: list[str]
) -> None:
    tokenizer = tokenizer_of(None)
    assert tokenizer.token_names(tokenizer.next_tokens(text, words)) == tokens


async def test_the_simulated_engine_gets_the_chat_as_bytes() -> None:
    (prompt,) = await encode_scored(SimulatedTokenizer(), scoring_job(), BASE_STYLE)
    question = QUESTION.format("which?", "a dog")
    assert bytes(prompt.ids).decode() == f"system: {SYSTEM}\nuser: {question}\nassistant: "
    assert prompt.scored == Scored((ord("y"), ord("n")))


async def test_a_tokenizer_without_tokens_for_the_labels_is_refused() -> None:
    backend = tokenizers.Tokenizer(WordLevel({"<unk>": 0, "a": 1}, unk_token="<unk>"))
    hf = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")
    code, param, message = await error_of(Tokenizer(hf, vocab_size=2), scoring_job())
    assert (code, param) == (ErrorCode.INVALID_VALUE, "model")
    assert "first tokens of yes and no are the same" in message


@pytest.mark.parametrize(
    ("scoring", "prompt", "param", "part"),
    [
        ({"label_ids": (5, 10**6)}, "x", "label_token_ids[1]", "outside the vocabulary"),
        ({"firsts": ((5,),)}, (10**6,), "items[0][1]", "outside the vocabulary"),
    ],
)
async def test_the_error_of_unknown_token_ids_names_the_request_field(
    scoring: dict[str, Any], prompt: Any, param: str, part: str
) -> None:
    given: dict[str, Any] = {"label_ids": (5,), "firsts": ("which?",), **scoring}
    params = ScoringParams(kind=ScoreKind.LABELS, fields=("query", "items"), **given)
    code, found, message = await error_of(tokenizer_of(None), scoring_job(params, prompt))
    assert (code, found) == (ErrorCode.INVALID_VALUE, param)
    assert part in message


async def encoded_likelihood(first: str, second: str) -> list[EncodedPrompt]:
    params = ScoringParams(kind=ScoreKind.LIKELIHOOD, fields=("text_1", "text_2"), firsts=(first,))
    return await encode_scored(tokenizer_of(None), scoring_job(params, second), BASE_STYLE)


async def test_a_token_that_both_texts_share_is_scored() -> None:
    (apart,) = await encoded_likelihood("the", " quick")
    assert apart.scored == Scored(num_unscored=1)
    (shared,) = await encoded_likelihood("a q", "uick")
    assert shared.scored is not None
    assert shared.scored.num_unscored < 2


async def test_a_first_text_without_a_token_of_its_own_is_refused() -> None:
    with pytest.raises(JobFailed) as caught:
        await encoded_likelihood("", "x")
    assert caught.value.error.param == "text_1"
