"""How fast the disk is right now. Disks of shared machines change by a factor of ten within minutes, so a durable
figure without this one beside it says nothing, and bars are ratios of figures from the same run.
"""

import os
import tempfile
import time
from pathlib import Path

BLOCK = b"x" * 4_096
SECONDS = 0.2


def fdatasyncs(directory: Path, seconds: float = SECONDS) -> float:
    """Return how many times per second 4 KiB are appended to a file of this directory and made durable."""
    with tempfile.NamedTemporaryFile(dir=directory, buffering=0) as file:
        count, started = 0, time.perf_counter()
        until = started + seconds
        while time.perf_counter() < until:
            file.write(BLOCK)
            os.fdatasync(file.fileno())
            count += 1
        return count / (time.perf_counter() - started)
