"""How often, and how much: token buckets per address, per token, for everybody. Pure: time is an argument (seconds)."""

import errno
import ipaddress
import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rate:
    """`burst` at once, then `per_second` more each second."""

    per_second: float
    burst: float


def out_of_files(error: BaseException) -> bool:
    """Whether this process, or the machine, has no descriptor, buffer or memory left: a reason to come back later."""
    scarce = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
    return isinstance(error, OSError) and error.errno in scarce


class Bucket:
    """One token bucket. Full at first."""

    def __init__(self, rate: Rate, now: float) -> None:
        self.rate = rate
        self._left = rate.burst
        self._at = now

    def wait(self, now: float, cost: float = 1.0) -> float:
        """Seconds until `cost` is there; 0.0 when it is there now. Takes nothing."""
        self._refill(now)
        return max(0.0, (cost - self._left) / self.rate.per_second)

    def take(self, cost: float = 1.0) -> None:
        """Takes what `wait` has just found to be there."""
        self._left -= cost

    def full(self, now: float) -> bool:
        self._refill(now)
        return self._left >= self.rate.burst

    def _refill(self, now: float) -> None:
        self._left = min(self.rate.burst, self._left + max(0.0, now - self._at) * self.rate.per_second)
        self._at = max(self._at, now)


class Buckets:
    """A bucket for every key, of bounded number: a flood of new keys evicts the oldest and the process stays small."""

    def __init__(self, rate: Rate, most: int = 10_000) -> None:
        self.rate = rate
        self._most = most
        self._by_key: OrderedDict[str, Bucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._by_key)

    def of(self, key: str, now: float) -> Bucket:
        bucket = self._by_key.get(key)
        if bucket is None:
            bucket = self._by_key[key] = Bucket(self.rate, now)
            if len(self._by_key) > self._most:
                self._by_key.popitem(last=False)
        else:
            self._by_key.move_to_end(key)
        return bucket


class Limits:
    """The three together. A request is charged to all of them or, when one says no, to none: a flood that is refused
    by its own address's bucket does not drain the one that belongs to everybody."""

    def __init__(self, address: Rate, token: Rate, everybody: Rate, now: float) -> None:
        self._addresses = Buckets(address)
        self._tokens = Buckets(token)
        self._everybody = Bucket(everybody, now)

    def wait(self, now: float, address: str, token: str | None = None, cost: float = 1.0) -> float:
        """Charges the request and returns 0.0, or returns the seconds after which it is worth asking again."""
        buckets: Sequence[Bucket] = [self._addresses.of(network(address), now), self._everybody]
        if token is not None:
            buckets = [*buckets, self._tokens.of(token, now)]
        waiting = max(bucket.wait(now, cost) for bucket in buckets)
        if waiting > 0.0:
            return waiting
        for bucket in buckets:
            bucket.take(cost)
        return 0.0


def network(address: str) -> str:
    """Whom an address is counted as: an IPv4 host, or an IPv6 /64, since one person owns 2^64 of those."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return str(ip.ipv4_mapped)
        return str(ipaddress.ip_network((ip, 64), strict=False))
    return str(ip)


def retry_after(seconds: float) -> str:
    """For the Retry-After header: whole seconds, at least one."""
    return str(max(1, math.ceil(seconds)))
