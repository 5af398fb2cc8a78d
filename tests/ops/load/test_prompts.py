from ops.load.prompts import WORDS, prompt


def test_a_prompt_has_the_number_of_words_asked_for() -> None:
    words = prompt("", 0, 128).split(" ")
    assert len(words) == 128
    assert set(words) <= set(WORDS)


def test_a_prompt_depends_on_seed_and_index_alone() -> None:
    assert prompt("1", 2, 20) == prompt("1", 2, 20)
    assert len({prompt(str(seed), index, 20) for seed in range(5) for index in range(5)}) == 25


def test_no_word_is_listed_twice() -> None:
    assert len(WORDS) == len(set(WORDS))
