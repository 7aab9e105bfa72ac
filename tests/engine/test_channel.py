"""Bounded, closeable, counted."""

import asyncio
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.channel import Channel, ChannelClosedError, ChannelFullError


async def test_it_gives_back_in_order_and_ends_when_closed():
    channel: Channel[int] = Channel(3, "refuse")
    for item in (1, 2, 3):
        channel.put_nowait(item)
    channel.close()
    assert [item async for item in channel] == [1, 2, 3]
    assert (channel.received, channel.dropped, len(channel), channel.closed) == (3, 0, 0, True)


async def test_the_newest_wins_where_the_oldest_is_dropped():
    channel: Channel[int] = Channel(2, "drop_oldest")
    for item in range(5):
        channel.put_nowait(item)
    assert (await channel.get(), await channel.get()) == (3, 4)
    assert (channel.received, channel.dropped) == (5, 3)


@pytest.mark.parametrize("full", ["refuse", "wait"])
async def test_a_full_channel_that_may_not_lose_says_so(full):
    channel: Channel[int] = Channel(1, full, name="events")
    channel.put_nowait(1)
    with pytest.raises(ChannelFullError, match="events holds 1"):
        channel.put_nowait(2)
    assert (len(channel), channel.received, channel.dropped) == (1, 1, 0)


async def test_refuse_does_not_wait_even_when_awaited():
    channel: Channel[int] = Channel(1, "refuse")
    await channel.put(1)
    with pytest.raises(ChannelFullError):
        await channel.put(2)


async def test_a_fast_sender_waits_for_room():
    channel: Channel[int] = Channel(2, "wait")

    async def send():
        for item in range(6):
            await channel.put(item)
        channel.close()

    sender = asyncio.create_task(send())
    await asyncio.sleep(0.01)
    assert channel.received == 2
    assert [item async for item in channel] == list(range(6))
    await sender
    assert channel.dropped == 0


async def test_closing_wakes_everyone_who_waits():
    empty: Channel[int] = Channel(1)
    full: Channel[int] = Channel(1, "wait")
    full.put_nowait(0)
    takers = [asyncio.create_task(empty.get()) for _ in range(2)]
    sender = asyncio.create_task(full.put(1))
    await asyncio.sleep(0)
    empty.close()
    full.close()
    results = await asyncio.gather(*takers, sender, return_exceptions=True)
    assert all(isinstance(result, ChannelClosedError) for result in results)
    with pytest.raises(ChannelClosedError):
        empty.put_nowait(1)


async def test_closing_twice_is_closing_once_and_discarding_counts():
    channel: Channel[int] = Channel(4)
    channel.put_nowait(1)
    channel.put_nowait(2)
    channel.close(discard=True)
    channel.close()
    assert [item async for item in channel] == []
    assert channel.dropped == 2


async def test_leaving_the_block_closes_it():
    async with Channel[int](2) as channel:
        channel.put_nowait(1)
    assert channel.closed
    assert len(channel) == 0


async def test_a_cancelled_taker_loses_nothing():
    """Woken and cancelled in the same turn of the loop: the item goes to the next taker."""
    channel: Channel[str] = Channel(2)
    first, second = (asyncio.create_task(channel.get()) for _ in range(2))
    await asyncio.sleep(0)
    channel.put_nowait("word")
    first.cancel()
    assert await asyncio.wait_for(second, 1) == "word"
    assert first.cancelled()


async def test_a_cancelled_sender_gives_its_turn_away():
    channel: Channel[int] = Channel(1, "wait")
    channel.put_nowait(0)
    first, second = asyncio.create_task(channel.put(1)), asyncio.create_task(channel.put(2))
    await asyncio.sleep(0)
    assert await channel.get() == 0
    first.cancel()
    await asyncio.wait_for(second, 1)
    assert await channel.get() == 2


async def test_an_interrupt_empties_it_and_lets_waiting_senders_in():
    channel: Channel[int] = Channel(2, "wait")
    channel.put_nowait(0)
    channel.put_nowait(1)
    sender = asyncio.create_task(channel.put(2))
    await asyncio.sleep(0)
    assert channel.clear() == 2
    await asyncio.wait_for(sender, 1)
    assert (channel.get_nowait(), channel.get_nowait(), channel.dropped) == (2, None, 2)


@pytest.mark.parametrize(("capacity", "full"), [(0, "wait"), (-1, "refuse"), (4, "explode")])
def test_a_channel_that_cannot_work_is_not_made(capacity, full):
    with pytest.raises(ValueError, match="frames"):
        Channel(capacity, full, name="frames")


@given(st.integers(1, 4), st.lists(st.integers(-1, 9), max_size=40))
def test_it_behaves_like_a_deque_of_the_newest(capacity, script):
    """-1 takes, any other number puts."""
    channel: Channel[int] = Channel(capacity)
    model: deque[int] = deque(maxlen=capacity)
    taken = 0
    for item in script:
        if item < 0:
            expected = model.popleft() if model else None
            assert channel.get_nowait() == expected
            taken += expected is not None
        else:
            channel.put_nowait(item)
            model.append(item)
        assert len(channel) == len(model) <= capacity
    assert channel.received == taken + channel.dropped + len(channel)
