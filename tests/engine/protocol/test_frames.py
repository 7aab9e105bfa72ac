"""The binary frame, by the golden vectors of the contract (clients/PROTOCOL.md)."""

from typing import Any

import pytest

from engine.protocol.closing import Close, ProtocolError
from engine.protocol.frames import Frame, pack_frame, parse_frame
from tests.engine.protocol.said import GOLDEN


@pytest.mark.parametrize("vector", GOLDEN["headers"], ids=lambda v: v["name"])
def test_headers_are_as_the_contract_draws_them(vector: dict[str, Any]) -> None:
    payload = bytes.fromhex(vector["payload_hex"])
    fields = vector["type"], vector["flags"], vector["seq"], vector["epoch"], int(vector["pts_us"])
    assert pack_frame(*fields, payload).hex() == vector["hex"]
    assert parse_frame(bytes.fromhex(vector["hex"])) == Frame(*fields, payload)


@pytest.mark.parametrize("vector", GOLDEN["refused"], ids=lambda v: v["name"])
def test_broken_frames_are_refused(vector: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError) as refused:
        parse_frame(bytes.fromhex(vector["hex"]))
    assert refused.value.close is Close.BAD_MESSAGE
