"""The secrets of one stack: random at each start, never stored with the project."""

import secrets
import time
from dataclasses import dataclass, field
from functools import cached_property

import jwt

_YEAR = 365 * 24 * 3600


def _random(prefix: str = "") -> str:
    return prefix + secrets.token_urlsafe(32)


@dataclass(frozen=True)
class Keys:
    jwt_secret: str = field(default_factory=_random, repr=False)
    publishable_key: str = field(default_factory=lambda: _random("sb_publishable_"), repr=False)
    secret_key: str = field(default_factory=lambda: _random("sb_secret_"), repr=False)
    cron_secret: str = field(default_factory=_random, repr=False)

    @cached_property
    def anon_key(self) -> str:
        """The legacy form of the publishable key."""
        return self.token(role="anon")

    @cached_property
    def service_role_key(self) -> str:
        """The legacy form of the secret key, which Edge Functions are given."""
        return self.token(role="service_role")

    def token(self, *, role: str, seconds: int = _YEAR, **claims: object) -> str:
        now = int(time.time())
        payload = {"iss": "supabase", "role": role, "iat": now, "exp": now + seconds, **claims}
        return jwt.encode(payload, self.jwt_secret, algorithm="HS256")
