"""How these tests are shared out over processes: they compute, and two cores do that in half the time."""

import pytest


@pytest.hookimpl(tryfirst=True)  # before the plugin that shares out reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A file's tests share what they set up, and all that use the small avatar share it."""
    for item in items:
        group = "small" if "small" in getattr(item, "fixturenames", ()) else item.path.name
        item.add_marker(pytest.mark.xdist_group(group))
