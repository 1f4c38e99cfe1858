"""Where the client finds the API and its keys: keyword arguments, else the environment, else a ``.env`` file."""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from dotenv import dotenv_values, find_dotenv

from widget_analytics.errors import ConfigError

_URL = "SUPABASE_URL"
SECRET_KEY = "SUPABASE_SECRET_KEY"  # noqa: S105 (a variable's name)
PUBLISHABLE_KEY = "SUPABASE_PUBLISHABLE_KEY"
DATABASE_URL = "SUPABASE_DB_URL"
TIMEOUT = "WIDGET_ANALYTICS_TIMEOUT"
#: What httpx raises where the environment's proxy or certificates are none.
UNUSABLE = (OSError, ImportError, ValueError)


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What a client needs to know. Keys stay out of ``repr``.

    Attributes:
        url: the project's API URL, such as ``https://abcdefgh.supabase.co``.
        api_key: the key that the API knows the caller by.
        access_token: the bearer token; the key itself, unless a signed-in user's token was given.
    """

    url: str
    api_key: str = field(repr=False)
    access_token: str = field(repr=False)

    @classmethod
    def load(
        cls,
        *,
        url: str | None = None,
        secret_key: str | None = None,
        publishable_key: str | None = None,
        access_token: str | None = None,
    ) -> Settings:
        """Fill what is not given from the environment, then from the nearest ``.env`` at or above the working folder.

        The secret key wins over the publishable one, unless an access token says that a user is signed in.

        Raises:
            ConfigError: something is missing or cannot be right.
        """
        found = environment()
        if secret_key is None and publishable_key is None:
            secret_key, publishable_key = found.get(SECRET_KEY), found.get(PUBLISHABLE_KEY)
        secret = _clean_key(secret_key, SECRET_KEY)
        publishable = _clean_key(publishable_key, PUBLISHABLE_KEY)
        if secret and _is_publishable(secret):
            raise ConfigError(f"{SECRET_KEY} holds a publishable key; it needs the project's secret key (sb_secret_…).")

        api_key = (publishable or secret) if access_token else (secret or publishable)
        if not api_key:
            raise ConfigError(f"no key: set {SECRET_KEY} in the environment or in .env (see .env.example).")
        return cls(
            url=_clean_url(url or found.get(_URL)),
            api_key=api_key,
            access_token=_clean_key(access_token, "access_token") or api_key,
        )


def database_url() -> str:
    """Give the database's address with its password, from the environment, else from the nearest ``.env``.

    Raises:
        ConfigError: there is none.
    """
    url = (environment().get(DATABASE_URL) or "").strip()
    if not url:
        raise ConfigError(
            f"no database: set {DATABASE_URL} in the environment or in .env, to the project's direct connection or "
            "its session pooler (port 5432), as `postgres`."
        )
    return url


def variable(name: str) -> str:
    """Give a setting from the environment, else from the nearest ``.env``; empty where it is in neither."""
    return _clean_key(environment().get(name), name)


def patience(default: float = 30.0) -> float:
    """Give the seconds to wait for an answer: those of the environment or the nearest ``.env``, else ``default``.

    Raises:
        ConfigError: they are no number above 0.
    """
    text = (environment().get(TIMEOUT) or "").strip()
    try:
        seconds = float(text or default)
    except ValueError:
        seconds = 0
    if not 0 < seconds < threading.TIMEOUT_MAX:
        raise ConfigError(f"{TIMEOUT} must be a number of seconds above 0, such as 120")
    return seconds


def environment() -> Mapping[str, str | None]:
    """The environment's variables, and those of the nearest .env that it has not.

    Raises:
        ConfigError: that file cannot be read.
    """
    path = ""
    try:
        path = find_dotenv(usecwd=True)
        return {**dotenv_values(path), **os.environ}
    except UnicodeDecodeError:
        # The error would show a part of the file, which holds keys.
        raise ConfigError(f"{path} cannot be read: save it as UTF-8") from None
    except OSError as error:
        if not path:  # the working folder is gone
            return dict(os.environ)
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error


def unusable(error: Exception) -> str:
    """Say that httpx cannot work with what the environment names."""
    reason = " ".join(str(error).split())
    return (
        "the proxy or the certificates that the environment names cannot be used "
        f"(HTTP_PROXY, SSL_CERT_FILE and the like): {reason}"
    )


def _clean_url(url: str | None) -> str:
    if not url or not url.strip():
        raise ConfigError(f"no API URL: set {_URL} in the environment or in .env (see .env.example).")
    try:
        parts = urlsplit(url.strip())
        # Both raise ValueError where they cannot be read.
        is_api = parts.port != 0 and bool((parts.hostname or "").encode("idna"))
    except ValueError:
        is_api = False
    if not is_api or parts.scheme not in ("http", "https") or parts.path.strip("/") or parts.query:
        raise ConfigError(f"{_URL} must look like https://your-project.supabase.co, without a path.")
    return f"{parts.scheme}://{parts.netloc}"


def _clean_key(key: str | None, name: str) -> str:
    # An HTTP library that meets a line break in a header would print the whole key in its error.
    cleaned = (key or "").strip()
    if not re.fullmatch(r"[\x21-\x7e]*", cleaned):
        raise ConfigError(f"{name} holds characters that no key has; copy it again from where it was made.")
    return cleaned


def _is_publishable(key: str) -> bool:
    return key.startswith("sb_publishable_") or legacy_claims(key).get("role") == "anon"


def legacy_claims(key: str) -> dict[str, Any]:
    """Give what a key of the older kind, which is a JWT, says of itself; nothing of another."""
    try:
        payload = key.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (IndexError, ValueError, binascii.Error):
        return {}
    return claims if isinstance(claims, dict) else {}
