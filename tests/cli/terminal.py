"""The command line in this process: what a user types, and what comes out where."""

import json
import sys
from typing import Any, NamedTuple

import pytest

from hauberk.cli import main


class Done(NamedTuple):
    """One command, done."""

    status: int
    out: str
    err: str

    @property
    def data(self) -> Any:  # noqa: ANN401  # JSON
        """Standard output, which has to be one JSON document."""
        return json.loads(self.out)


class Terminal:
    """Runs commands."""

    def __init__(self, patch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[str]) -> None:
        self._patch = patch
        self._capture = capture

    def __call__(self, *arguments: object) -> Done:
        self._patch.setattr(sys, "argv", ["hauberk", *map(str, arguments)])
        try:
            main()
            status: object = 0
        except SystemExit as end:
            status = end.code
        out, err = self._capture.readouterr()
        assert isinstance(status, int)
        return Done(int(status), out, err)
