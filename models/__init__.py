"""Networks, faces and runtimes. No asyncio, no sockets, no sessions; `engine` is never imported here."""
