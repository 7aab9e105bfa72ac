"""Several runtimes as one: each row goes to the one that has its avatar open."""

from collections.abc import Mapping, Sequence

from models.runtime import AvatarCard, Out, Row, Runtime


class Together:
    """Implements `models.runtime.Runtime`. Cards come in the order of `names`."""

    def __init__(self, runtimes: Sequence[Runtime], names: Sequence[str]) -> None:
        self._runtimes = list(runtimes)
        self._whose = {name: runtime for runtime in runtimes for name in runtime.cards}
        self._cards = {name: self._whose[name].cards[name] for name in names}
        if len(self._cards) < sum(len(runtime.cards) for runtime in runtimes):
            raise ValueError(f"two packages have one name: {', '.join(sorted(names))}")

    @property
    def cards(self) -> Mapping[str, AvatarCard]:
        return self._cards

    def step(self, rows: Sequence[Row]) -> list[Out]:
        outs: dict[int, Out] = {}
        for runtime in self._runtimes:
            places = [place for place, row in enumerate(rows) if self._whose[row.avatar] is runtime]
            if places:
                outs |= zip(places, runtime.step([rows[place] for place in places]), strict=True)
        return [outs[place] for place in range(len(rows))]

    def close(self) -> None:
        for runtime in self._runtimes:
            runtime.close()
