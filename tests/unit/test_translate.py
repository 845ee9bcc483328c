"""What a request says, in the words of the domain."""

import pytest

from server.api.translate import priority_words, status_words


@pytest.mark.parametrize("words", [status_words, priority_words])
def test_a_filter_with_a_million_values_has_but_a_few_to_look_at(words: object) -> None:
    assert callable(words)
    assert len(words([1, 2, 3, 4] * 250_000)) == 4


def test_a_number_without_a_word_stays_visible_among_those_that_have_one() -> None:
    assert status_words([1, 99, 0, 1]) == {"open", None}
    assert priority_words([-1, 4]) == {"urgent", None}
