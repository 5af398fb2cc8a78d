"""The examples of all tasks are those that the demo's adapters were trained and judged with."""

import hashlib
import json

import pytest
from demo_teacher import ScriptedTeacher

from ops.demo.task import Example
from ops.demo.tasks import TASKS

TRAINING = {
    "extract": "a5e46a4066aaa9bda945c37c4945809cf7831dd67f7d1fef07ae9344960d2612",
    "pirate": "32157dac609d3068f03603823c11ddd9d5fbc3427b1c800c252810a5413183b9",
    "sentiment": "83e1f0a86dddda609ba410772567b505789fbe08774581658840c7fd79f66994",
    "sql": "96f7e9e8e70e7f210daa7a1a2f8c0963d09027dc8356baf39eda038dbdc36cb3",
}
"""SHA-256 of the training examples. The answers of a real teacher differ."""
HELD_OUT = {
    "extract": "e42d363f4d2c7ab32173aeba0cc2158ab7ace215ee1622d868ec7db9b3789e31",
    "pirate": "652b33b8e9cfb15b963ae881dfc4ed5d7ba725922301e6f39446500e30ec2970",
    "sentiment": "89f4fabb6dae259de36272c520bcf250b13f87c0bfce7511299848ae02da6805",
    "sql": "a19f86c1c421ffbd821a453d805e7c69509d0f9b983aa7229cd0a5fdbf57a581",
}


def digest(examples: list[Example]) -> str:
    pairs = [(example.prompt, example.answer) for example in examples]
    return hashlib.sha256(json.dumps(pairs).encode()).hexdigest()


@pytest.mark.parametrize("name", TASKS)
def test_the_examples_of_a_task_never_change(name: str) -> None:
    assert digest(TASKS[name].training(ScriptedTeacher())) == TRAINING[name]
    assert digest(TASKS[name].held_out()) == HELD_OUT[name]
