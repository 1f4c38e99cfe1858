"""What one provider's list of calls looks like. Everything else is the same for all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from widget_analytics._providers.api import ProviderApi
from widget_analytics._providers.records import ProviderRecord, Skipped
from widget_analytics._settings import variable
from widget_analytics.errors import ConfigError

#: The calls that started in a period.
Read = Callable[[ProviderApi, datetime, datetime], Iterator[ProviderRecord | Skipped]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """A provider that lists its calls.

    Attributes:
        name: as the webhooks' receiver calls it.
        url: the API's address; the setting ``<NAME>_API_URL`` replaces it, for another region.
        key_variable: the setting that holds the API's key.
        headers: how the key is sent.
        read: the list, page by page.
        user_variable: the setting that holds the user's name, where the key is a password.
        is_exact: whether its list tells the same times as its webhooks. Where it rounds otherwise, the times of a known
            record stay, as two that differ by more than a second are an alarm.
    """

    name: str
    url: str
    key_variable: str
    headers: Callable[[str], Mapping[str, str]]
    read: Read
    user_variable: str | None = None
    is_exact: bool = True

    def connect(self) -> ProviderApi:
        """Open the conversation.

        Raises:
            ConfigError: there is no key.
        """
        key = required(self.key_variable)
        user = self.user_variable and required(self.user_variable)
        return ProviderApi(
            variable(f"{self.name.upper()}_API_URL") or self.url,
            headers=self.headers(key),
            auth=(user, key) if user else None,
            variable=self.key_variable,
        )


def required(name: str) -> str:
    value = variable(name)
    if not value:
        raise ConfigError(f"no key: set {name} in the environment or in .env (see .env.example).")
    return value


def bearer(key: str) -> Mapping[str, str]:
    return {"Authorization": f"Bearer {key}"}
