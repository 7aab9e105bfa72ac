"""`avatar.v1` without sockets: messages in, actions out, and back. The public contract is clients/PROTOCOL.md.

Pure: no I/O, no clock (time is an argument, in seconds). The JSON events travel on the WebRTC data channel too.

    closing       how a connection ends
    frames        the binary frame; payloads: what is in it
    events        JSON, bounded
    wishes        what a client says; reader: what to do about it
    writer        a moment written down for a client; coords, resampling: as it asked
    outbox        what it has yet to be sent
"""

from typing import Final

SUBPROTOCOL: Final = "avatar.v1"
PROTOCOL: Final = "1.0"
PATH: Final = "/v1/stream"
MESSAGE_BYTES_MOST: Final = 64 * 1024
