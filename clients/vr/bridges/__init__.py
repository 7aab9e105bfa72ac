"""From `avatar.v1` to what other programs listen to. Each bridge is one thin file over the Python client."""
