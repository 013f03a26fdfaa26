"""Headers of a call: what policies see of them."""

import pytest

from hauberk.core.call import Headers


@pytest.mark.parametrize("sent", [b"admin", b"admin ", b"admin\t", b" \t admin \t"])
def test_white_space_around_a_header_is_no_part_of_it(sent: bytes) -> None:
    assert Headers([(b"x-role", sent)]).get("X-Role") == "admin"


def test_header_bytes_are_read_as_policies_are_written() -> None:
    assert Headers([(b"x-name", "m\u00fcller".encode())]).get("x-name") == "m\u00fcller"
    assert Headers([(b"x-name", "m\u00fcller".encode("latin-1"))]).get("x-name") == "m\udcfcller"
    assert Headers([(b"x-role", b"a "), (b"x-role", b" b")]).get("x-role") == "a,b"
