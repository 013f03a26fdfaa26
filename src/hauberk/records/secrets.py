"""Recognising secrets among what is about to be recorded: by the name they stand under, and by how they look.

What is recognised is replaced by `[secret]`. By name: passwords, keys, tokens, cookies, card numbers and the like, in
any case, with any separators or accents, and in letters that look like these (`_ALIKE`: the common ones, not all there
are). By look, within a text: private keys in PEM, JWTs, credentials of HTTP schemes and of URLs, headers and
assignments such as `password=...`, and tokens with the prefixes of well-known issuers. A secret that stands under an
innocent name and looks like any other word, such as a password in a sentence, is not recognised; nothing could. All of
this is a net under whoever records, and no reason to hand secrets over.

Every pattern reads a text in a time that grows with its length alone.
"""

import re
import unicodedata
from functools import lru_cache

SECRET = "[secret]"  # noqa: S105  # what stands in place of one
SHORTEST = 8  # characters; below that no text is recognised as holding a secret

_WHOLE = frozenset({"auth", "session", "sid"})  # a secret as a name, not as a part of one
# As a word of a name, not within a word.
_WORDS = frozenset({"bearer", "cookies", "cvc", "cvv", "jwt", "otp", "pan", "passcode", "pin", "ssn", "totp"})
_PARTS = (
    "accesskey", "apikey", "authorization", "cardnumber", "ccnumber", "connectionstring", "cookie", "creditcard",
    "credential", "encryptionkey", "passphrase", "passwd", "password", "privatekey", "pwd", "secret", "securitycode",
    "sessionid", "signingkey", "sshkey", "token",
)  # fmt: skip
# Letters of other alphabets that look like Latin ones, and signs that are written for letters.
_SEEN = (
    "@$035"
    "\u0430\u0432\u0435\u043a\u043c\u043d\u043e\u0440\u0441\u0442\u0443\u0445\u0456"
    "\u0458\u0455\u0501\u051b\u051d\u04bb\u04cf\u0261"  # Cyrillic, and a g
    "\u03b1\u03b5\u03b9\u03ba\u03bd\u03bf\u03c1\u03c4\u03c5\u03c7"  # Greek
    "\u0585\u057d\u0578\u0251\u0131\u0269"  # Armenian, and Latin letters of other languages
)
_MEANT = "asoes" + "abekmhopctyxi" + "jsdqwhlg" + "aeikvoptux" + "ounaii"
_ALIKE = str.maketrans(_SEEN + _SEEN.upper(), _MEANT + _MEANT.upper())
_SPLIT = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_TRIGGERS = (  # where none of these stands, in lower case, no pattern below matches
    "eyj", "-----begin", "://", "bearer", "basic", "negotiate", "digest", "passw", "passphrase", "pwd", "secret",
    "token", "key", "authorization", "cookie", "credential", "number", "akia", "asia", "ghp_", "gho_", "ghu_", "ghs_",
    "ghr_", "github_pat_", "xox", "sk_",
)  # fmt: skip
_trigger = re.compile("|".join(map(re.escape, _TRIGGERS))).search
_PRIVATE_KEY = re.compile(
    r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
    r"(?s:.*?)(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----|\Z)"
)
_JWT = re.compile(r"(?<![\w-])eyJ[\w-]{5,}\.[\w-]+(?:\.[\w-]*){0,3}")
_ISSUED = re.compile(
    r"\b(?:(?:AKIA|ASIA)[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{36,}|github_pat_\w{22,}|xox[abposr]-[\w-]{10,}"
    r"|sk_(?:live|test)_[A-Za-z0-9]{16,})"
)
_HEADER = re.compile(r"(?i)((?:set-)?cookie2?|(?:proxy-)?authorization)(\s{0,5}:[ \t]{0,5})[^\r\n]+")
_SCHEME = re.compile(r"(?i)\b(bearer|basic|negotiate|digest)(\s{1,5})(?=\S*[\d=._+/-]|\S{20})[\w.~+/=-]{8,}")
_USERINFO = re.compile(r"(://[^\s/:@]{0,200}:)[^\s/@]{1,500}@")
_ASSIGNED = re.compile(
    r"(?i)((?:passw(?:or)?d|passphrase|pwd|secret|token(?!s)|(?:api|access|private|signing)[_-]?key|cookie|credentials?"
    r"|card[_-]?number)[\w-]{0,20}(?:\\?[\"'])?\]?\s{0,5}[:=]>?\s{0,5})(?!\[secret\])"
    r"(?:\\\"[^\"]*(?:\"|\Z)|\"(?:[^\"\\]|\\.)*(?:\"|\Z)|'(?:[^'\\]|\\.)*(?:'|\Z)"  # between quotes of some kind
    r"|[^\s\"']\S*)"  # or to the next space: a password may hold any sign
)
_LOOKS = (
    (_PRIVATE_KEY, SECRET),
    (_HEADER, rf"\1\2{SECRET}"),
    (_JWT, SECRET),
    (_ISSUED, SECRET),
    (_SCHEME, rf"\1\2{SECRET}"),
    (_USERINFO, rf"\1{SECRET}@"),
    (_ASSIGNED, rf"\1{SECRET}"),
)


@lru_cache(4_096)
def secret_name(name: str) -> bool:
    """Tell whether what stands under this name is a secret, as far as a name can tell."""
    plain = unicodedata.normalize("NFKD", name)
    if _is_secret(plain):
        return True
    alike = plain.translate(_ALIKE)
    return alike != plain and _is_secret(alike)


def _is_secret(plain: str) -> bool:
    joined = "".join(char for char in plain.casefold() if char.isalnum())
    if joined in _WHOLE or any(part in joined for part in _PARTS):
        return True
    return not _WORDS.isdisjoint(word.lower() for word in _SPLIT.findall(plain))


def innocent(text: str) -> bool:
    """Tell whether nothing in a text can look like a secret, so that there is no need to look closely."""
    return len(text) < SHORTEST or _trigger(text.lower()) is None


def hide(text: str) -> tuple[str, int]:
    """Return a text whose parts that look like secrets are replaced, and how many those were."""
    if innocent(text):
        return text, 0
    hidden = 0
    for pattern, put in _LOOKS:
        text, count = pattern.subn(put, text)
        hidden += count
    return text, hidden
