"""Scenarios of lm-eval with a local task."""

import json
import os
from pathlib import Path
from typing import Any

import httpx
import lm_eval
import pytest
from lm_eval.tasks import TaskManager
from weather_chat import BASE, CALLER, GREETING, HELLO

URL = os.environ["OPENAI_BASE_URL"]
QUESTIONS = [{"question": HELLO, "answer": GREETING, "choices": ["cat", "dogs"], "label": 0}]
TASK: dict[str, Any] = {
    "dataset_path": "json",
    "test_split": "test",
    "doc_to_text": "question",
    "num_fewshot": 0,
}
GENERATE: dict[str, Any] = {
    **TASK,
    "task": "greeting",
    "output_type": "generate_until",
    "doc_to_target": "answer",
    "generation_kwargs": {"until": ["\n"], "max_gen_toks": 60},
    "metric_list": [{"metric": "exact_match"}],
}
CHOOSE: dict[str, Any] = {
    **TASK,
    "task": "choice",
    "output_type": "multiple_choice",
    "doc_to_choice": "choices",
    "doc_to_target": "label",
    "target_delimiter": " ",
    "metric_list": [{"metric": "acc"}],
}


def evaluated(folder: Path, task: dict[str, Any], model: str, **options: Any) -> Any:
    """Return the results and samples of a task."""
    path = folder / "questions.json"
    path.write_text(json.dumps(QUESTIONS))
    located = {**task, "dataset_kwargs": {"data_files": {"test": str(path)}}}
    args = {"max_retries": 1, "auth_token": os.environ["OPENAI_API_KEY"], **options.pop("args")}
    done = lm_eval.simple_evaluate(
        model=model,
        model_args=args,
        tasks=[located],
        task_manager=TaskManager(include_defaults=False),
        bootstrap_iters=0,
        **options,
    )
    return done["results"][task["task"]], done["samples"][task["task"]]


def test_a_chat_is_evaluated(tmp_path: Path) -> None:
    args = {"model": CALLER, "base_url": f"{URL}/chat/completions"}
    results, samples = evaluated(
        tmp_path, GENERATE, "local-chat-completions", args=args, apply_chat_template=True
    )
    assert samples[0]["filtered_resps"] == [GREETING]
    assert results["exact_match,none"] == 1


def test_a_text_is_evaluated(tmp_path: Path) -> None:
    args = {"model": BASE, "base_url": f"{URL}/completions"}
    _, samples = evaluated(tmp_path, GENERATE, "local-completions", args=args)
    expected = completed(prompt=HELLO, max_tokens=60, temperature=0, stop=["\n"])
    assert expected["text"]
    assert samples[0]["filtered_resps"] == [expected["text"]]


@pytest.mark.parametrize("batch_size", [1, 2])
def test_choices_are_scored_by_the_log_probabilities_of_the_prompt(
    tmp_path: Path, batch_size: int
) -> None:
    args = {"model": BASE, "base_url": f"{URL}/completions"}
    results, samples = evaluated(
        tmp_path, CHOOSE, "local-completions", args=args, batch_size=batch_size
    )
    scores = [score for score, _ in samples[0]["filtered_resps"]]
    expected = [scored(choice) for choice in QUESTIONS[0]["choices"]]
    assert scores == pytest.approx(expected, abs=1e-3)
    assert results["acc,none"] == (expected[0] > expected[1])


def scored(word: str) -> float:
    """Return the log probability of the choice after the question; each byte is a token."""
    text = f"{HELLO} {word}"
    choice = completed(prompt=text, echo=True, logprobs=1, max_tokens=0)
    return float(sum(choice["logprobs"]["token_logprobs"][len(HELLO) : len(text)]))


def completed(**body: Any) -> Any:
    """Return the base model's completion."""
    headers = {"Authorization": f"Bearer {os.environ['OPENAI_API_KEY']}"}
    reply = httpx.post(f"{URL}/completions", json={"model": BASE, **body}, headers=headers)
    return reply.raise_for_status().json()["choices"][0]
