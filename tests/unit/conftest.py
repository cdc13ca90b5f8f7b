"""Unit tests are small: one that runs away ends with a MemoryError and its name, and not the machine."""

import resource

MOST = 6 << 30  # bytes of data in one test process


def pytest_configure() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (MOST if hard == resource.RLIM_INFINITY else min(MOST, hard), hard))
