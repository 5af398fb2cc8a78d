from collections import Counter

from demo_teacher import ScriptedTeacher

from ops.demo.sentiment.held_out import STATEMENTS
from ops.demo.sentiment.task import LABELS, TASK
from ops.demo.sentiment.topics import MOODS, TOPICS, VERDICTS


def test_labels_are_equally_often_learned_and_held_out() -> None:
    for examples in (TASK.training(ScriptedTeacher()), TASK.held_out()):
        assert set(Counter(e.answer for e in examples).values()) == {len(examples) // len(LABELS)}


def test_no_held_out_statement_has_a_phrase_of_training() -> None:
    held_out = "\n".join(STATEMENTS.values()).lower()
    predicates = [
        phrase for topic in TOPICS for phrases in topic.predicates.values() for phrase in phrases
    ]
    whole = [phrase for phrases in (*VERDICTS.values(), *MOODS.values()) for phrase in phrases]
    clauses = [
        f"{s} {p}" for t in TOPICS for s in t.subjects for ps in t.predicates.values() for p in ps
    ]
    for phrase in (*whole, *clauses, *(p for p in predicates if len(p.split()) > 4)):
        assert phrase.lower().rstrip(".!") not in held_out
