"""Clients know only the wire: see PROTOCOL.md. Nothing here imports `engine` or `models`."""
