"""Enough of everything that lips do, and the same every time."""

from models.studio.sentences import FOREIGN, SENTENCES, sentences


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
