"""Signing and opening feed messages: msgpack of `[payload, signature]`, Ed25519 over a context line and the payload."""

import msgspec

from hauberk.core.feed import Message
from hauberk.crypto.signing import SigningKey, VerifyKey
from hauberk.errors import PolicyError, RecordsError

MAX_WIRE_BYTES = 64 * 1024 * 1024
_CONTEXT = b"hauberk feed 1\n"
_encoder = msgspec.msgpack.Encoder()
_decode_envelope = msgspec.msgpack.Decoder(tuple[bytes, bytes]).decode
_decode_message = msgspec.msgpack.Decoder(Message).decode


def sign_message(message: Message, key: SigningKey) -> bytes:
    """Return the wire form."""
    payload = _encoder.encode(message)
    return _encoder.encode((payload, key.sign(_CONTEXT + payload)))


def open_message(wire: bytes, key: VerifyKey) -> Message:
    """Verify and read a message.

    Raises:
        PolicyError: HBK-305 malformed, or not signed by this key.
    """
    if len(wire) > MAX_WIRE_BYTES:
        raise PolicyError("HBK-305", "too large", bytes=len(wire))
    try:
        payload, signature = _decode_envelope(wire)
        key.verify(_CONTEXT + payload, signature)
        return _decode_message(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecordsError) as error:
        raise PolicyError("HBK-305", "malformed, or not signed by the authority") from error
