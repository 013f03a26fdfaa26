"""How a test says that something is refused: with this code, and with nothing private in what a caller may see."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from hauberk.errors import REGISTRY, HauberkError


@contextmanager
def refuses(code: str) -> Iterator[pytest.ExceptionInfo[HauberkError]]:
    """Expect a refusal with `code` in the body of the with statement."""
    with pytest.raises(HauberkError) as caught:
        yield caught
    assert caught.value.code == code, caught.value.diagnostics()
    assert str(caught.value) == f"{code} {REGISTRY[code].public}"
