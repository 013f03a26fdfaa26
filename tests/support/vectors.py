"""Where the public vectors are, if they are there."""

from pathlib import Path

import pytest

VECTORS = Path(__file__).parents[2].parent / "shared" / "vectors"


def vectors(*parts: str) -> Path:
    """Return a folder of vectors, or skip the test."""
    path = VECTORS.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"the public vectors {'/'.join(parts)} are not on this machine")
    return path
