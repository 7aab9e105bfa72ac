"""A client of `avatar.v1`: push a voice, get faces. See README.md; the contract is clients/PROTOCOL.md."""

from clients.python.client import Avatar, AvatarClosedError, connect
from clients.python.wire import Event, Face, Message, Picture, Points, Sampler, Sound

__all__ = [
    "Avatar",
    "AvatarClosedError",
    "Event",
    "Face",
    "Message",
    "Picture",
    "Points",
    "Sampler",
    "Sound",
    "connect",
]
