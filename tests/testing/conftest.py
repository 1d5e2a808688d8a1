"""What a failed check has to say."""

import pytest


@pytest.fixture
def assert_caught():
    """The check fails on the component, and says what was expected, what came and how to mend it."""

    def assert_caught(check, component):
        with pytest.raises(AssertionError) as caught:
            check(component)
        text = str(caught.value)
        assert text.startswith("expected "), text
        assert "; got " in text, text
        assert text.count("; ") >= 2, text

    return assert_caught
