"""The asyncio engine: sessions, one clock, and the skins that carry them. Read `pipeline.py` first."""
