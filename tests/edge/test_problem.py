"""What a refused caller reads: a constant sentence, a code, an incident id."""

import json
import re

import pytest

from hauberk.edge.problem import CONTENT_TYPE, problem
from hauberk.errors import REGISTRY

CODES = sorted(REGISTRY)


@pytest.mark.parametrize("code", CODES)
def test_a_problem_says_the_same_for_a_code_every_time_but_for_the_incident(code: str) -> None:
    status, headers, body = problem(code, "0123456789abcdef")
    fields = dict(headers)
    assert json.loads(body) == {
        "type": "about:blank",
        "title": REGISTRY[code].public,
        "status": status,
        "code": code,
        "incident": "0123456789abcdef",
    }
    assert fields[b"content-type"] == CONTENT_TYPE == b"application/problem+json"
    assert fields[b"content-length"] == b"%d" % len(body)
    assert fields[b"cache-control"] == b"no-store"
    assert fields[b"x-content-type-options"] == b"nosniff"
    assert problem(code, "f" * 16)[2].replace(b"f" * 16, b"0123456789abcdef") == body


@pytest.mark.parametrize("code", CODES)
def test_a_status_is_an_error_and_the_text_holds_no_internals(code: str) -> None:
    status, _, body = problem(code, "0" * 16)
    assert 400 <= status < 600
    assert not re.search(rb"Traceback|File |/src/|\.py|0x[0-9a-f]{6}|hauberk\.|spiffe://[a-z]", body)


def test_unavailable_says_when_to_come_back() -> None:
    for code in CODES:
        status, headers, _ = problem(code, "0" * 16)
        assert (b"retry-after" in dict(headers)) is (status == 503)
