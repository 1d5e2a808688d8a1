"""Small scans as bytes, so that a test can damage them."""

import pytest
from scan_bytes import Scans


@pytest.fixture(scope="session")
def scans():
    return Scans()
