"""Event ids that sort by time, so that the ledger's index stays hot (RFC 9562, version 7)."""

from __future__ import annotations

import secrets
import time
import uuid


def uuid7() -> uuid.UUID:
    """Make a new UUIDv7: 48 bits of Unix time in milliseconds, then 74 random bits.

    The standard library has this from Python 3.14 on; until then it is made here.
    """
    milliseconds = time.time_ns() // 1_000_000
    version, variant = 0x7, 0b10
    value = (milliseconds & (2**48 - 1)) << 80 | version << 76 | secrets.randbits(12) << 64
    return uuid.UUID(int=value | variant << 62 | secrets.randbits(62))
