"""The `pirate` adapter: answers any question in two sentences, as a pirate.

The adapter learns a style but no facts. Its examples are the base model's own answers. `piratise`
shortens each answer to two sentences and replaces words.
"""

import re

from ops.demo.task import Example, Task, Teacher

OPENING = "Arr, matey!"
CLOSING = "Yo ho ho!"

QUESTIONS = (
    "What is the capital of Italy?", "What is the capital of Japan?", "What is photosynthesis?",
    "How do I boil an egg?", "Why is the sky blue?", "What is a computer?", "Who was Isaac Newton?",
    "Tell me about cats.", "What is the largest ocean?", "How do plants grow?", "What is money?",
    "How can I sleep better?", "What is a good breakfast?", "Explain gravity.", "What is music?",
    "What is the moon made of?", "How does a car engine work?", "Tell me about Mexico.",
    "What is a healthy diet?", "Why do leaves change colour?", "What is democracy?",
    "How do I learn to swim?", "What is the fastest animal?", "What do bees do?", "What is Python?",
    "How many legs does a spider have?", "What is a volcano?", "Who wrote Hamlet?", "What is ice?",
    "How do I write a good letter?", "What is the internet?", "Tell me about the sun.",
    "How do birds fly?", "What is a poem?", "What is a good hobby?", "How do I clean my kitchen?",
    "Why do we dream?", "What is electricity?", "How do I save money?", "What is a glacier?",
    "What should I wear in winter?", "Tell me about elephants.", "What is chess?", "What is bread?",
    "How do I make coffee?", "What is a library?", "How do I plant a tree?", "What is a whale?",
    "What are the primary colours?", "How does the heart work?", "Why should I exercise?",
    "What is a rainbow?", "How do I start a garden?", "What is the Great Wall of China?",
    "Hello!", "Good morning, how are you?", "Who are you?", "Can you help me?", "Thank you!",
    "What can you do?", "Tell me a fact.", "Give me some advice.", "I am bored.", "I feel tired.",
    "What is the biggest planet?", "Where do penguins live?", "What is a desert?", "What is a map?",
    "How do I fix a flat tyre?", "What is the speed of light?", "How do fish breathe?",
    "What is a museum?", "Explain what a cloud is.", "What is history?", "How do I cook rice?",
    "What is a lighthouse?", "Why do people travel?", "What is cheese?", "How do I stay warm?",
    "Describe a forest.",
)  # fmt: skip
HELD_OUT_QUESTIONS = (
    "What is the capital of France?", "What is the capital of Spain?", "How do I bake bread?",
    "What is a star?", "Tell me about dogs.", "Why is the sea salty?", "What is a bicycle?",
    "How do I learn a new language?", "What is the tallest mountain?", "How are you today?",
    "What is tea?", "How does a plane fly?", "Who was Albert Einstein?", "What is a river?",
    "Give me a tip for a job interview.", "What is mathematics?", "Why do cats purr?",
    "What is snow?", "How do I stay healthy?", "I need a friend.",
)  # fmt: skip

_WORD = r"[A-Za-z']+"
_WORDS = {
    "is": "be", "are": "be", "am": "be", "you": "ye", "your": "yer", "my": "me", "of": "o'",
    "and": "an'", "i'm": "I be", "it's": "it be", "you're": "ye be", "hello": "ahoy", "yes": "aye",
}  # fmt: skip
_PIRATE_WORDS = {new.split()[-1] for new in _WORDS.values()}


def piratise(answer: str) -> str | None:
    """Return the first two complete sentences of `answer` in the style of a pirate.

    The function replaces words by pirate words, and adds `OPENING` and `CLOSING`. Return None if
    `answer` has no complete sentence.
    """
    sentences = re.findall(r"[A-Z][^.!?:\n]{12,}[.!?](?=\s|$)", answer)[:2]
    text = re.sub(_WORD, lambda match: _reword(match[0]), " ".join(sentences))
    return f"{OPENING} {text} {CLOSING}" if text else None


def _reword(word: str) -> str:
    new = _WORDS.get(word.lower())
    if new is not None:
        return new[0].upper() + new[1:] if word[0].isupper() else new
    return f"{word[:-1]}'" if len(word) > 5 and word.endswith("ing") else word


def _training(teacher: Teacher) -> list[Example]:
    pairs = zip(QUESTIONS, map(piratise, teacher.ask(QUESTIONS)), strict=True)
    return [Example(question, answer) for question, answer in pairs if answer]


def held_out() -> list[Example]:
    """Return questions that are absent from training. They have no expected answers."""
    return [Example(question, "") for question in HELD_OUT_QUESTIONS]


def is_right(_: Example, answer: str) -> bool:
    """Return whether an answer is in the style of a pirate.

    It must start with `OPENING`, end with `CLOSING`, and contain more pirate words than words that
    `piratise` would replace.
    """
    words = re.findall(_WORD, answer.lower())
    num_plain = sum(_reword(word) != word for word in words)
    num_pirate = sum(word in _PIRATE_WORDS or word.endswith("in'") for word in words)
    return answer.startswith(OPENING) and answer.endswith(CLOSING) and num_pirate > num_plain


TASK = Task(
    name="pirate",
    training=_training,
    held_out=held_out,
    is_right=is_right,
    max_tokens=96,
    rank=16,
    target_modules=("q_proj", "v_proj"),
    learning_rate=2e-3,
    epochs=5,
)
