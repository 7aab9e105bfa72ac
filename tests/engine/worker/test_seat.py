"""A seat: in order, in turn, from silence, and nobody else's."""

import pytest

from engine.worker import MOST_PENDING, NoFreeSlot, SeatBusy, UnknownAvatar, Worker, WorkerLost
from models.runtime import Wants
from tests.engine.worker.asked import ALL, back, chunk, heard, say
from tests.models.runtime import scripted


async def test_answers_of_one_seat_come_in_order_however_many_wait(worker: Worker) -> None:
    with worker.seat("anna") as seat:
        answers = [seat.hear(chunk(value=1), 0, Wants.POINTS) for _ in range(MOST_PENDING)]
        with pytest.raises(SeatBusy):
            seat.hear(chunk(), 0, Wants.POINTS)
        assert [heard(await answer) for answer in answers] == [1, 2, 3, 4, 5, 6, 7, 8]
        assert heard(await say(seat)) == 9


async def test_a_full_house_refuses_and_a_released_seat_is_free_again(worker: Worker) -> None:
    seats = [worker.seat("anna") for _ in range(3)]
    assert worker.free_slots == 0
    with pytest.raises(NoFreeSlot, match="3 slots") as refusal:
        worker.seat("anna")
    assert refusal.value.retry_after > 0
    with pytest.raises(UnknownAvatar, match="open are: anna, bert"):
        worker.seat("../../etc/passwd")
    seats[1].release()
    seats[1].release()
    assert worker.free_slots == 1
    with worker.seat("bert") as seat:
        assert (seat.slot, seat.generation) == (1, 2)
        with pytest.raises(RuntimeError, match="released"):
            seats[1].hear(chunk(), 0, ALL)


async def test_a_late_answer_never_reaches_the_next_session_of_its_slot(worker: Worker) -> None:
    first = worker.seat("anna")
    late = first.hear(chunk(scripted.SLOW, value=100), 0, ALL)
    first.release()
    assert late.cancelled()
    with worker.seat("anna") as second:
        assert second.slot == first.slot
        out = await say(second, 1)
    assert (out.generation, heard(out)) == (2, 1)


async def test_a_new_session_starts_from_silence_without_asking(worker: Worker) -> None:
    with worker.seat("anna") as seat:
        await say(seat, 50)
    with worker.seat("anna") as seat:
        assert heard(await say(seat, 1)) == 1
        assert heard(await say(seat, 1)) == 2
        assert heard(await say(seat, 1, reset=True)) == 1


async def test_an_answer_of_another_slot_is_never_delivered(worker: Worker) -> None:
    with worker.seat("anna") as a, worker.seat("anna"):
        with pytest.raises(WorkerLost):
            await say(a, order=scripted.LEAK)
        await back(worker)
        assert heard(await say(a, 4)) == 4
