"""Long runs: what only shows after a thousand sessions."""
