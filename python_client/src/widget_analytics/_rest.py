"""One HTTP conversation with the project's REST API: our errors, our retries, exact values."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import partial
from itertools import chain, islice
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import httpx

from widget_analytics._answers import error_of
from widget_analytics._deadline import late, within
from widget_analytics._lines import ahead, from_lines, to_lines
from widget_analytics._paging import Filter, Place, Row, read_by_key, read_by_position, read_calls
from widget_analytics._queries import Paging, Query
from widget_analytics._retries import retrying
from widget_analytics._settings import UNUSABLE, Settings, unusable
from widget_analytics.errors import ConfigError, Unreachable
from widget_analytics.periods import Period

if TYPE_CHECKING:
    from supabase import Client

# Covers both a server whose clock is not quite the database's, and events whose transaction has not ended yet: over
# the API none may take longer than the statement time-out, 8 seconds unless set otherwise.
_SETTLING = timedelta(minutes=1)
# Many more ids would not fit into a URL; then all widgets are read, and the others are left out here.
_MAX_WIDGETS_IN_URL = 100
_PAGES_AHEAD = 2


class RestTransport:
    """A Supabase client whose answers are either good or one of our errors.

    Args:
        settings: where to and as whom.
        origin: the page that events are said to come from, sent as ``Origin``.
        timeout: seconds to wait for each answer to begin, and for each next part of it.
        attempts: how often a request is sent at most, the first time included.
        page_size: rows to ask for at once.
    """

    def __init__(
        self, settings: Settings, *, origin: str | None, timeout: float, attempts: int, page_size: int
    ) -> None:
        # Only now: it takes most of the command's start, and neither --help nor a wrong option needs it.
        from supabase import ClientOptions, create_client  # noqa: PLC0415

        self._page_size = page_size
        self._retrying = retrying(attempts, patience=timeout)
        # When the latest answer was made, by the server's clock (to the second); None where no answer told.
        self._answered_at: datetime | None = None
        # Redirects are not followed: the key would go along.
        headers = {"Authorization": f"Bearer {settings.access_token}"} | ({"Origin": origin} if origin else {})
        try:
            self._http = _PunctualClient(
                timeout=httpx.Timeout(timeout, connect=min(timeout, 10)),
                event_hooks={"response": [self._note_time, _raise_unless_good]},
            )
            self._supabase: Client = create_client(
                settings.url, settings.api_key, ClientOptions(headers=headers, httpx_client=self._http)
            )
        except UNUSABLE as error:
            raise ConfigError(unusable(error)) from error

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    @property
    def host(self) -> str:
        """The project's host: no scheme, port or key."""
        return str(self._supabase.rest_url.host)

    def settled_moment(self) -> datetime:
        """Give a moment whose events are all there, by the server's clock."""
        self.answer(lambda api: api.from_("widget_billing_periods").select("period").limit(1))
        if self._answered_at is None:
            raise Unreachable("the answers tell no time (Date): name a moment yourself, as_of", is_passing=False)
        return self._answered_at - _SETTLING

    def call(self, function: str, arguments: Callable[[], dict[str, Any]]) -> Any:
        """Call a function, and give its answer. Arguments are asked for anew at each attempt."""
        return self.answer(lambda api: api.rpc(function, arguments()))

    def answer(self, request: Callable[[Client], Any]) -> Any:
        """Give the answer to a request, which is sent again after a failure that may pass.

        Everything that this package sends may be sent twice: events have names, and cleaning up twice is cleaning up.
        Numbers come as text, with all their digits.

        Raises:
            WidgetAnalyticsError: the last attempt's.
        """
        response = self.respond(request)
        try:
            return json.loads(response.content, parse_float=str, parse_int=str)
        except ValueError:
            raise self._no_api() from None

    def respond(self, request: Callable[[Client], Any]) -> httpx.Response:
        """The same, but give the whole of the response."""
        response: httpx.Response = self._retrying(self._send, request)
        return response

    def _send(self, request: Callable[[Client], Any]) -> httpx.Response:
        try:
            # Not by postgrest's own execute(): it makes floats of numbers, and its retries know no Retry-After.
            response: httpx.Response = request(self._supabase).request.send(httpx.Headers())
        except httpx.TimeoutException as error:
            raise late(self._http.timeout.read or 0) from error
        except httpx.TransportError as error:
            raise Unreachable(
                f"cannot reach {self.host}: {error or type(error).__name__}. Check SUPABASE_URL and the network."
            ) from error
        return response

    def rows(self, query: Query[Any]) -> Iterator[Row]:
        """Yield rows, holding one page at a time."""
        if query.period:
            return from_lines(query.model, chain.from_iterable(self._calls(query, query.period)))
        return chain.from_iterable(self._pages(query))

    def batches(self, query: Query[Any]) -> Generator[list[bytes], None, None]:
        """Yield each page as lines."""
        pages = self._calls(query, query.period) if query.period else self._pages_as_lines(query)
        # The first one alone: who finds that there is no answer has begun no file.
        yield from chain(islice(pages, 1), ahead(pages, _PAGES_AHEAD))

    def _pages_as_lines(self, query: Query[Any]) -> Generator[list[bytes], None, None]:
        values = itemgetter(*query.model.columns())
        for page in self._pages(query):
            yield list(to_lines(query.model, map(values, page)))

    def _calls(self, query: Query[Any], period: Period) -> Generator[list[bytes], None, None]:
        widgets = None if query.widgets is None else sorted(map(str, query.widgets))

        def fetch(start: datetime, end: datetime, after: Place | None) -> list[bytes]:
            arguments = {"widgets": widgets, "after": after, "most": self._page_size}
            part = {**(query.between(start, end).arguments or {}), **arguments}
            lines = self.call(f"{query.relation}_csv", lambda: part)
            if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
                raise self._no_api()
            return [f"{line}\n".encode() for line in lines]

        yield from read_calls(period, fetch, self._page_size)

    def _pages(self, query: Query[Any]) -> Iterator[list[Row]]:
        def fetch(filters: list[Filter]) -> list[Row]:
            return self._page(query, filters)

        if query.paging is Paging.KEY:
            pages = read_by_key(query.key, fetch)
        elif query.paging is Paging.POSITION:
            pages = read_by_position(lambda seen: self._page(query, [], seen), query.most)
        else:
            pages = iter([fetch([])])
        wanted = query.widgets and set(map(str, query.widgets))
        for page in pages:
            yield page if wanted is None else [row for row in page if row["widget_id"] in wanted]

    def _page(self, query: Query[Any], filters: list[Filter], offset: int = 0) -> list[Row]:
        answer = self.answer(lambda api: self._request(api, query, filters, offset))
        rows = [answer] if isinstance(answer, dict) else answer
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise self._no_api()
        return rows

    def _request(self, api: Client, query: Query[Any], filters: list[Filter], offset: int) -> Any:
        relation: Any
        if query.arguments is None:
            relation = api.from_(query.relation)
        else:
            relation = api.rpc(query.relation, dict(query.arguments))
        request = relation.select(",".join(query.model.columns()))
        if query.widgets is not None and len(query.widgets) <= _MAX_WIDGETS_IN_URL:
            request = request.in_("widget_id", sorted(map(str, query.widgets)))
        for column, operator, value in (*query.where, *filters):
            request = request.filter(column, operator, value)
        for column in query.key:
            name, _, order = column.partition(" ")
            request = request.order(name, desc=order == "desc", nullsfirst=True if order == "nulls first" else None)
        if query.paging is Paging.NONE:
            return request
        rows = self._page_size if query.most is None else min(self._page_size, query.most - offset)
        return request.offset(offset).limit(rows) if offset else request.limit(rows)

    def _no_api(self) -> Unreachable:
        return Unreachable(f"{self.host} does not answer as a Supabase API does. Check SUPABASE_URL.", is_passing=False)

    def _note_time(self, response: httpx.Response) -> None:
        with suppress(ValueError):
            at = parsedate_to_datetime(response.headers.get("Date", ""))
            self._answered_at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


class _PunctualClient(httpx.Client):
    """Limits the time until an answer begins, which httpx's time-outs of single reads do not."""

    def send(self, request: httpx.Request, *, stream: bool = False, **options: Any) -> httpx.Response:
        """Send a request."""
        answer = within(self.timeout.read or 0, partial(super().send, request, stream=True, **options))
        try:
            if not stream:
                answer.read()
        except BaseException:
            answer.close()
            raise
        return answer


def _raise_unless_good(response: httpx.Response) -> None:
    # Here, as postgrest's own error has neither the status nor the headers.
    if not response.is_success:
        response.read()
        raise error_of(response)
