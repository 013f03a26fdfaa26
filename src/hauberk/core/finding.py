"""A finding: something a linter, detector or scan noticed."""

from enum import StrEnum

import msgspec


class Severity(StrEnum):
    """How bad."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What was noticed.

    Args:
        source: `lint`, `posture`, `detection` ...
        rule: stable id of the check, such as `split-from-to`.
        severity: how bad.
        message: one sentence.
        file: where, or empty.
        line: from 1, 0 when unknown.
        field: path of the field, such as `spec.rules[0].to`.
        subject: such as `production/service-access-control`.
        fix: the corrected text, or empty.
    """

    source: str
    rule: str
    severity: Severity
    message: str
    file: str = ""
    line: int = 0
    field: str = ""
    subject: str = ""
    fix: str = ""
