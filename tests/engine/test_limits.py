"""Token buckets on a clock that the test moves."""

import errno

from engine.limits import Bucket, Buckets, Limits, Rate, network, out_of_files, retry_after


def limits(address: float = 5, token: float = 100, everybody: float = 100) -> Limits:
    return Limits(Rate(1, address), Rate(1, token), Rate(1, everybody), now=0.0)


def test_a_burst_is_let_through_and_then_one_a_second() -> None:
    some = limits(address=5)
    assert [some.wait(0.0, "10.0.0.1") for _ in range(5)] == [0.0] * 5
    assert some.wait(0.0, "10.0.0.1") == 1.0
    assert some.wait(0.75, "10.0.0.1") == 0.25
    assert some.wait(1.0, "10.0.0.1") == 0.0


def test_s5_a_flood_from_one_address_does_not_touch_another() -> None:
    some = limits(address=5, everybody=20)
    refused = sum(some.wait(0.0, "10.0.0.66") > 0 for _ in range(10_000))
    assert refused == 9_995
    assert some.wait(0.0, "10.0.0.1") == 0.0


def test_s5_one_token_used_from_many_addresses_has_one_allowance() -> None:
    some = limits(token=3)
    waits = [some.wait(0.0, f"10.0.0.{n}", token="stolen") for n in range(10)]
    assert sum(wait == 0.0 for wait in waits) == 3


def test_s5_everybody_together_has_an_end() -> None:
    some = limits(everybody=50)
    assert sum(some.wait(0.0, f"10.0.{n // 250}.{n % 250}") == 0.0 for n in range(1_000)) == 50


def test_what_one_bucket_refuses_is_charged_to_none() -> None:
    some = limits(address=5, everybody=6)
    for _ in range(100):
        some.wait(0.0, "10.0.0.66", token="a")
    assert some.wait(0.0, "10.0.0.1", token="a") == 0.0


def test_an_ipv6_neighbourhood_is_one_guest() -> None:
    assert network("2001:db8::1") == network("2001:db8::ffff:1") != network("2001:db8:0:1::1")
    assert network("::ffff:10.0.0.1") == network("10.0.0.1") == "10.0.0.1"
    assert network("fe80::1%eth0") == network("fe80::2")
    assert network("unix socket") == "unix socket"


def test_a_flood_of_new_addresses_does_not_grow_memory() -> None:
    buckets = Buckets(Rate(1, 1), most=100)
    for n in range(10_000):
        buckets.of(str(n), 0.0)
    assert len(buckets) == 100


def test_a_clock_that_stands_still_or_steps_back_gives_nothing_away() -> None:
    bucket = Bucket(Rate(1, 1), now=10.0)
    bucket.take()
    assert bucket.wait(5.0) == 1.0
    assert bucket.wait(10.0) == 1.0
    assert not bucket.full(10.5)
    assert bucket.full(11.0)


def test_retry_after_is_whole_seconds_and_never_zero() -> None:
    assert [retry_after(wait) for wait in (0.0, 0.2, 1.0, 1.01)] == ["1", "1", "1", "2"]


def test_l7_what_is_scarce_is_told_from_what_is_wrong() -> None:
    assert out_of_files(OSError(errno.EMFILE, "Too many open files"))
    assert not out_of_files(OSError(errno.EACCES, "Permission denied"))
    assert not out_of_files(ValueError("Too many open files"))
