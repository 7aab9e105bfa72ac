"""Enough of everything that lips do, and the same every time."""

import pytest

from models.studio.sentences import FOREIGN, SENTENCES, SYLLABLES, nonsense, pseudo, sentences


def test_the_same_seed_says_the_same() -> None:
    assert sentences(50, 7) == sentences(50, 7)
    assert sentences(50, 7) != sentences(50, 8)


def test_hand_written_ones_come_first_and_none_is_empty() -> None:
    made = sentences(100, 1)
    assert tuple(made[: len(SENTENCES)]) == SENTENCES
    assert all(len(text.split()) >= 4 and text.endswith((".", "?")) for text in made)


def test_every_language_has_lips() -> None:
    for texts in FOREIGN.values():
        assert all(sum(letter in "mbpMBP" for letter in text) >= 2 for text in texts)


def test_invented_words_put_lips_where_the_tongue_could_be() -> None:
    made = nonsense(300, 1)
    assert made == nonsense(300, 1) != nonsense(300, 2)
    letters = "".join(made).lower()
    lips, tongue = (sum(letters.count(letter) for letter in which) for which in ("mbp", "ndt"))
    assert 0.6 < lips / tongue < 1.6
    words = {word.strip(".") for text in made for word in text.lower().split()}
    assert len(words) > 1_200, "nobody learns them by heart"


@pytest.mark.parametrize("language", [*SYLLABLES, "en"])
def test_words_of_other_languages_are_invented_and_rich_in_lips(language: str) -> None:
    made = pseudo(200, "1", language)
    assert made == pseudo(200, "1", language) != pseudo(200, "2", language)
    letters = "".join(made).lower()
    lips, tongue = (sum(letters.count(letter) for letter in which) for which in ("mbp", "ndt"))
    assert 0.5 < lips / tongue < 1.7
    assert len(set(made)) == 200
