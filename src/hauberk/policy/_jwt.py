"""The rules of a RequestAuthentication: Istio's `JWTRule`, field by field, kept as plain data once it is checked."""

import re
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

import msgspec

from hauberk.policy._reader import Reader

MAX_JWKS = 1024 * 1024  # characters of an inline key set
_HEADER = re.compile(r"[-_A-Za-z0-9]+\Z")  # what Istio takes for the header a claim is copied to
_DURATION = re.compile(r"(?:[0-9]{1,9}(?:\.[0-9]{1,9})?(?:ms|s|m|h))+\Z")


class _KeySet(msgspec.Struct):
    keys: list[dict[str, object]]


def _text(reader: Reader) -> str:
    return reader.text()


def _texts(reader: Reader) -> list[str]:
    return list(reader.texts())


def _address(reader: Reader) -> str:
    text = reader.text()
    try:
        parts = urlsplit(text)
        good = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is none
        good = False
    if not good:
        raise reader.error("not an http or https address")
    return text


def _key_set(reader: Reader) -> str:
    text = reader.text(limit=MAX_JWKS)
    try:
        keys = msgspec.json.decode(text, type=_KeySet).keys
    except (msgspec.DecodeError, RecursionError):
        raise reader.error("not a JSON Web Key Set") from None
    if not keys or not all(isinstance(key.get("kty"), str) for key in keys):
        raise reader.error("a key set has keys, and each says its kty")
    return text


def _from_headers(reader: Reader) -> list[dict[str, str]]:
    found = []
    for item in reader.items():
        fields = item.fields({"name", "prefix"})
        if "name" not in fields:
            raise item.error("the field is missing", field="name")
        found.append({name: field.text(empty=name == "prefix") for name, field in fields.items()})
    return found


def _claim_headers(reader: Reader) -> list[dict[str, str]]:
    found = []
    for item in reader.items():
        fields = item.fields({"header", "claim"})
        if len(fields) != len(("header", "claim")):
            raise item.error("header and claim are needed")
        if not _HEADER.match(fields["header"].text()):
            raise fields["header"].error("not the name of a header")
        found.append({name: field.text() for name, field in fields.items()})
    return found


def _duration(reader: Reader) -> str:
    text = reader.text()
    if not _DURATION.match(text):
        raise reader.error("not a duration such as 5s")
    return text


_FIELDS: Mapping[str, Callable[[Reader], object]] = {
    "issuer": _text,
    "audiences": _texts,
    "jwksUri": _address,
    "jwks": _key_set,
    "fromHeaders": _from_headers,
    "fromParams": _texts,
    "fromCookies": _texts,
    "outputPayloadToHeader": _text,
    "forwardOriginalToken": Reader.flag,
    "outputClaimToHeaders": _claim_headers,
    "timeout": _duration,
    "spaceDelimitedClaims": _texts,
}


def jwt_rule(reader: Reader) -> Mapping[str, object]:
    """Return a rule as plain data.

    Raises:
        PolicyError: HBK-301 what Istio's validation rejects.
    """
    fields = reader.fields(_FIELDS.keys())
    if "jwks" in fields and "jwksUri" in fields:
        raise fields["jwks"].error("jwks and jwksUri exclude each other")
    found = {name: _FIELDS[name](field) for name, field in fields.items()}
    if "issuer" not in found and "jwksUri" not in found:
        raise reader.error("issuer or jwksUri is needed", field="issuer")
    return found
