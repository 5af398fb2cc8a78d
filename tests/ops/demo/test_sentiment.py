from collections import Counter

from demo_teacher import ScriptedTeacher

from ops.demo.sentiment import LABELS, MOODS, PHRASES, TASK, VERDICTS


def test_labels_are_equally_often_learned_and_held_out() -> None:
    for examples in (TASK.training(ScriptedTeacher()), TASK.held_out()):
        assert set(Counter(e.answer for e in examples).values()) == {len(examples) // len(LABELS)}


def test_no_held_out_statement_has_a_phrase_of_training() -> None:
    held_out = "\n".join(example.prompt for example in TASK.held_out()).lower()
    topics = [(t["subjects"], t["predicates"].values()) for t in PHRASES["topics"]]
    predicates = [phrase for _, of_topic in topics for phrases in of_topic for phrase in phrases]
    whole = [phrase for phrases in (*VERDICTS.values(), *MOODS.values()) for phrase in phrases]
    clauses = [f"{s} {p}" for ss, of_topic in topics for s in ss for ps in of_topic for p in ps]
    for phrase in (*whole, *clauses, *(p for p in predicates if len(p.split()) > 4)):
        assert phrase.lower().rstrip(".!") not in held_out
