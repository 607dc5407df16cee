from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.serving.batches import Arrivals, Limits, Piece, is_full, next_batch

LIMITS = Limits(rows=8, tokens=100)


@dataclass(frozen=True, slots=True, eq=False)
class Named(Piece):
    name: int = 0


def texts(*sizes: int) -> list[Named]:
    """Rows of so many tokens, each due a second after the one before."""
    return [Named(("rows",), 1, size, float(number), number) for number, size in enumerate(sizes)]


PIECES = st.lists(
    st.builds(
        Named,
        st.sampled_from([None, ("a",), ("b",)]),
        st.integers(1, 12),
        st.integers(1, 150),
        st.floats(0, 10),
    ),
    min_size=1,
    max_size=60,
)


@given(PIECES, st.integers(1, 4))
def test_every_piece_goes_once_with_its_like_and_the_first_goes_first(pieces: list[Named], workers: int) -> None:
    waiting = sorted(pieces, key=lambda piece: piece.due)
    while waiting:
        batch = next_batch(waiting, LIMITS, workers)
        assert batch[0] is waiting[0] or waiting[0].due == batch[0].due
        assert any(piece is waiting[0] for piece in batch)
        if len(batch) > 1:
            assert {piece.key for piece in batch} == {waiting[0].key} != {None}
            assert LIMITS.hold(sum(piece.rows for piece in batch), max(piece.size for piece in batch))
        left = [piece for piece in waiting if not any(piece is each for each in batch)]
        assert len(left) == len(waiting) - len(batch)
        waiting = left


def test_the_first_takes_those_of_about_its_length_along() -> None:
    batch = next_batch(texts(20, 90, 22, 5, 19, 50, 21), LIMITS)
    assert [piece.size for piece in batch] == [20, 22, 19, 21]


def test_a_long_text_goes_when_it_is_first_whatever_its_length() -> None:
    batch = next_batch(texts(300, 5, 5), LIMITS)
    assert [piece.size for piece in batch] == [300]


def test_short_ones_fill_the_room_beside_a_long_one() -> None:
    assert [piece.size for piece in next_batch(texts(48, 5, 5, 5), LIMITS)] == [48, 5]


@pytest.mark.parametrize(("workers", "sizes"), [(1, [30, 30, 30]), (2, [30, 30]), (3, [30, 30])])
def test_idle_workers_share_what_waits(workers: int, sizes: list[int]) -> None:
    assert [piece.size for piece in next_batch(texts(30, 30, 30, 30), LIMITS, workers)] == sizes


def test_rows_without_lengths_count_by_their_number() -> None:
    pieces = [Piece(("x",), rows, 1, 0.0) for rows in (3, 4, 2)]
    assert [piece.rows for piece in next_batch(pieces, Limits(rows=8, tokens=2))] == [3, 4]


def test_full_is_when_no_row_more_would_fit() -> None:
    assert not is_full(texts(30, 30), LIMITS)
    assert is_full(texts(30, 30, 30), LIMITS)
    assert is_full(texts(*[1] * 8), LIMITS)
    assert is_full([Piece(None, 1, 1, 0.0)], LIMITS)


def arrivals(*times: float) -> Arrivals:
    seen = Arrivals()
    for moment in times:
        seen.note(moment)
    return seen


def test_nobody_waits_when_nobody_is_expected() -> None:
    assert arrivals(5.0).wait_s(5.0, 0.01, 5.0) == 0
    assert arrivals(1.0, 2.0, 3.0).wait_s(3.0, 0.01, 3.0) == 0


def test_under_load_a_batch_waits_while_requests_keep_coming() -> None:
    busy = arrivals(*(number / 1000 for number in range(50)))
    assert busy.wait_s(0.049, 0.01, 0.049) == pytest.approx(0.002)
    assert busy.wait_s(0.049, 0.01, 0.052) <= 0  # those expected have not come
    assert busy.wait_s(0.030, 0.01, 0.049) <= 0  # its oldest has waited long enough


def test_a_pause_is_learned_and_unlearned() -> None:
    seen = arrivals(0.0, 0.001, 0.002, 5.0)
    assert seen.wait_s(5.0, 0.01, 5.0) == 0
    for number in range(60):
        seen.note(5.0 + number / 1000)
    assert seen.wait_s(5.059, 0.01, 5.059) > 0
