import json

import pytest
from demo_teacher import ScriptedTeacher
from jinja2 import Environment

from ops.demo.model import HUB_ID
from ops.demo.tasks import ADAPTERS, TASKS

FEWEST = {"extract": 200, "pirate": 20, "sentiment": 200, "sql": 150}


def test_every_task_has_an_adapter() -> None:
    assert sorted(folder.name for folder in ADAPTERS.iterdir()) == sorted(TASKS) == sorted(FEWEST)


@pytest.mark.parametrize("name", TASKS)
def test_a_shipped_adapter_is_small_and_matches_its_task(name: str) -> None:
    folder = ADAPTERS / name
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == HUB_ID
    assert config["r"] == TASKS[name].rank
    assert set(config["target_modules"]) == set(TASKS[name].target_modules)
    assert sum(file.stat().st_size for file in folder.iterdir()) < 3_000_000


@pytest.mark.parametrize("name", TASKS)
def test_data_are_the_same_each_time(name: str) -> None:
    task = TASKS[name]
    assert task.training(ScriptedTeacher()) == task.training(ScriptedTeacher())
    assert task.held_out() == task.held_out()


@pytest.mark.parametrize("name", TASKS)
def test_held_out_prompts_are_many_and_different_and_absent_from_training(name: str) -> None:
    known = {example.prompt for example in TASKS[name].training(ScriptedTeacher())}
    held_out = {example.prompt for example in TASKS[name].held_out()}
    assert len(held_out) >= FEWEST[name]
    assert len(held_out) == len(TASKS[name].held_out())
    assert not known & held_out


@pytest.mark.parametrize("name", ["extract", "sentiment", "sql"])
def test_the_expected_answer_is_right_and_others_are_wrong(name: str) -> None:
    task = TASKS[name]
    for example in task.held_out()[:20]:
        assert task.is_right(example, example.answer)
        for wrong in (
            "",
            "I'm sorry, I can't help with that.",
            f"{example.answer} {example.answer}",
        ):
            assert not task.is_right(example, wrong)


def test_nothing_but_the_adapters_is_in_their_folder() -> None:
    files = {
        name: {"adapter_config.json", "adapter_model.safetensors"}
        | ({"chat_template.jinja"} if task.quotes_words else set())
        for name, task in TASKS.items()
    }
    assert {f.name: {file.name for file in f.iterdir()} for f in ADAPTERS.iterdir()} == files


@pytest.mark.parametrize("name", [name for name, task in TASKS.items() if task.quotes_words])
def test_a_template_repeats_the_users_message_with_quotes_for_spaces(name: str) -> None:
    template = Environment().from_string((ADAPTERS / name / "chat_template.jinja").read_text())
    chat = [
        {"role": "user", "content": 'Three "red" mirrors'},
        {"role": "assistant", "content": "As you wish."},
    ]
    shown = template.render(messages=chat, add_generation_prompt=True)
    assert '<|im_start|>user\nThree "red" mirrors\nThree""red""mirrors<|im_end|>\n' in shown
    assert shown.endswith("assistant\nAs you wish.<|im_end|>\n<|im_start|>assistant\n")
