"""The lag of the loop as its page tells it, and the offers that should not move it."""

import asyncio

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from engine.bench.lag import OFFER_BYTES, describe, edges, lags, thrown_offers
from engine.metrics import Metrics
from tests.fakes import JumpingClock


def test_the_page_is_read_as_it_is_written():
    metrics = Metrics()
    for lag in [0.0005] * 90 + [0.0119] * 9 + [0.0299]:
        metrics.loop_lag.observe(lag)
    told = describe({}, edges(metrics.expose()))
    assert told == {"p50": 1.0, "p99": 12.5, "max": pytest.approx(30.0), "count": 100.0}


def test_only_what_came_since_counts():
    before, after = {0.01: 100.0, 0.02: 150.0}, {0.01: 190.0, 0.02: 250.0}
    assert describe(before, after) == {"p50": 10.0, "p99": 20.0, "max": 20.0, "count": 100.0}
    assert describe(after, after) == {}


async def test_a_server_that_does_not_tell_has_none():
    assert await lags("http://127.0.0.1:9", None) == {}


async def test_offers_are_thrown_twice_a_second_and_their_answers_counted():
    sizes: list[int] = []

    async def whip(request: web.Request) -> web.Response:
        sizes.append(len(await request.read()))
        return web.Response(status=413)

    app = web.Application(client_max_size=1 << 20)
    app.router.add_post("/v1/whip", whip)
    clock = JumpingClock()
    async with TestServer(app, host="127.0.0.1") as server:
        async with thrown_offers(str(server.make_url("")).rstrip("/"), clock) as thrown:
            while len(sizes) < 3:
                await asyncio.sleep(0.01)
                if len(sizes) == sum(thrown.answers.values()):
                    clock.jump(0.5)
        assert thrown.answers.keys() == {413}
    assert sizes == [pytest.approx(OFFER_BYTES, rel=0.01)] * len(sizes)
