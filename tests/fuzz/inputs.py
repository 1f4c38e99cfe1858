"""What a hostile or broken sender may put on the wire, with good events among it, for track_event and track_events."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote_from_bytes
from uuid import UUID

from hypothesis import strategies as st

FIELDS = ("widget_id", "event_type", "session_id", "page_url", "event_id", "call_id", "seq", "age_ms", "properties")
EVENT_TYPES = ("widget_load", "widget_open", "call_start", "call_heartbeat", "call_end", "call_error")
KIB_64 = 64 * 1024


@dataclass(frozen=True)
class Raw:
    """A piece of JSON, or of what is none, that Python would not write by itself."""

    text: str


@dataclass(frozen=True)
class Fields:
    """An event as it is written down: in this order, with keys that may repeat."""

    pairs: tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class Request:
    """One POST."""

    function: str
    body: bytes
    content_type: str
    headers: tuple[tuple[str, str], ...] = ()
    of: int | None = None
    """How many events it holds; None where it may be no batch at all."""
    good: tuple[int, ...] = ()
    """The places of those events that must be taken, whatever stands around them."""

    @property
    def is_json(self) -> bool:
        return self.content_type == _JSON


@dataclass(frozen=True)
class Widgets:
    """Where events may go, and where they may not."""

    open: tuple[UUID, ...]
    closed: tuple[UUID, ...]


def written(value: Any) -> str:
    """As JSON, but that a `Raw` stands as it is and a key may stand twice."""
    match value:
        case Raw():
            return value.text
        case Fields():
            return "{" + ",".join(f"{json.dumps(key)}:{written(each)}" for key, each in value.pairs) + "}"
        case list():
            return "[" + ",".join(map(written, value)) + "]"
        case dict():
            return written(Fields(tuple(value.items())))
        case _:
            return json.dumps(value)


# What jsonb can hold: a batch with these in it is read, and its good events are taken.
_ODD_TEXTS = st.sampled_from(
    [
        *("", " ", "x" * 255, "x" * 256, "😀" * 255, "😀" * 256, "x" * 5000, "null", "true", "0", "-1", "{}", "[]"),
        *("infinity", "-infinity", "NaN", "1e400000", "1e309", "0x10", "1_000", "٣", "9" * 400, "epoch", "now"),
        *("'; drop table public.widgets; --", "$$", "\\", '"', "%s", "{{}}", "\u202e", "\ufffe", "\x7f", "\r\n"),
        *("https://user:pw@shop.example/?q#f", "javascript:alert(1)", "https://" + "a" * 3000, "http://[::1"),
    ]
)
_ODD_NUMBERS = st.one_of(
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([0, -1, 2**31 - 1, 2**31, 2**63 - 1, 2**63, -(2**63), 10**30, 1.5, 1e300, -0.0, 604_800_001]),
)
_ODD_VALUES = st.one_of(
    st.none(), st.booleans(), _ODD_NUMBERS, _ODD_TEXTS, st.text(alphabet=st.characters(codec="utf-8", min_codepoint=1)),
    st.lists(st.integers(), max_size=3), st.dictionaries(st.text("ab", min_size=1), st.integers(), max_size=2),
    st.sampled_from([{"x": "y" * 5000}, [[[[]]]], {"a": {"b": {"c": None}}}]),
)  # fmt: skip


# What jsonb cannot hold, or is no JSON at all: it may cost the whole request, and nothing else.
def _nested(depth: int) -> Raw:
    return Raw("[" * depth + "]" * depth)


_POISON = st.sampled_from(
    [
        *("\0", "a\0b", "\ud800", "\udfff", "x\ud83d", {"\0": 1}, {"a": "\0"}, {"\ud800": 1}),
        *(
            Raw(text)
            for text in ("1e400000", "-1e400000", "NaN", "Infinity", "01", ".5", "1.", "+1", "'x'", "undefined")
        ),
        *(
            Raw(text)
            for text in ("{", "[", "]", '"', '"\\u00"', '"\\x"', "{1:2}", "[1,]", '{"a":1,}', "", "/**/1", "\x01")
        ),
        *(_nested(depth) for depth in (100, 5000, 16_000)),
        *(Raw('{"a":' * depth + "1" + "}" * depth) for depth in (100, 16_000)),
    ]
)


@st.composite
def good_events(draw: st.DrawFn, widgets: Widgets) -> Fields:
    """An event that must be taken. Sessions are many: one with thousands of calls is another matter."""
    pairs: dict[str, Any] = {
        "widget_id": str(draw(st.sampled_from(widgets.open))),
        "event_type": draw(st.sampled_from(EVENT_TYPES)),
        "session_id": str(draw(st.uuids())) + draw(st.sampled_from(["", " ", "'", "é", "😀"])),
    }
    more = {
        "page_url": st.sampled_from(["https://shop.example/a?b#c", "about:blank", "", "x" * 3000]),
        "event_id": st.uuids().map(str),
        "call_id": st.sampled_from(["c", "d", "x" * 255]),
        "seq": st.integers(1, 999_999_999),
        "age_ms": st.integers(-1000, 604_800_000),
        "properties": st.fixed_dictionaries({"code": st.text("abc", max_size=9), "duration_seconds": st.integers()}),
    }
    for name in draw(st.lists(st.sampled_from(sorted(more)), unique=True)):
        pairs[name] = draw(more[name])
    return Fields(tuple(pairs.items()))


@st.composite
def bad_events(draw: st.DrawFn, widgets: Widgets, *, poison: bool) -> Any:
    """A good event with something done to it, or no event at all."""
    values = st.one_of(_ODD_VALUES, _POISON) if poison else _ODD_VALUES
    if draw(st.integers(0, 9)) == 0:
        return draw(values)
    pairs = list(draw(good_events(widgets)).pairs)
    for _ in range(draw(st.integers(1, 3))):
        match draw(st.sampled_from(["value", "value", "value", "twice", "drop", "extra", "widget"])):
            case "value":
                name = draw(st.sampled_from(FIELDS))
                pairs = [pair for pair in pairs if pair[0] != name] + [(name, draw(values))]
            case "twice":
                pairs.append((draw(st.sampled_from(FIELDS)), draw(values)))
            case "drop" if pairs:
                pairs.pop(draw(st.integers(0, len(pairs) - 1)))
            case "extra":
                pairs.append((draw(st.text(max_size=80).filter(lambda key: "\0" not in key)), draw(values)))
            case "widget":
                other = draw(st.sampled_from([*map(str, widgets.closed), str(UUID(int=0)), "no-uuid", ""]))
                pairs = [pair for pair in pairs if pair[0] != "widget_id"] + [("widget_id", other)]
    return Fields(tuple(pairs))


_HEADERS = st.lists(
    st.sampled_from(
        [
            ("prefer", "return=minimal"), ("prefer", "params=single-object"), ("accept", "*/*"), ("range", "0-0"),
            ("user-agent", ""), ("user-agent", "x" * 4000), ("user-agent", "ÿ"), ("x-forwarded-for", "203.0.113.7, x"),
            ("referer", "https://evil.example/"), ("content-encoding", ""),
        ]
    ),
    max_size=2,
    unique_by=lambda header: header[0],
).map(tuple)  # fmt: skip
_JSON, _FORM = "application/json", "application/x-www-form-urlencoded"
_OTHER_TYPES = (_JSON, _FORM, "text/plain", "multipart/form-data", "", "x")
_OTHER_BODIES = (
    *(b"", b"null", b"5", b'"x"', b"[]", b"{}", b"[{}]", b'{"events":null}', b'{"events":"["}', b"\xef\xbb\xbf{}"),
    *(b"events", b"events=%", b"&&=", b"events=%FF", b"events=%ED%A0%80", b'{"events":["\xff"]}'),
)


def _quoted(value: Any) -> str:
    text = value if isinstance(value, str) else written(value)
    return quote_from_bytes(text.encode("utf-8", "surrogatepass"), safe="")


def _as_json(value: Any) -> bytes:
    return written(value).encode("utf-8", "surrogatepass")


def _as_form(pairs: Iterable[tuple[str, Any]]) -> bytes:
    return "&".join(f"{_quoted(name)}={_quoted(value)}" for name, value in pairs).encode()


@dataclass(frozen=True)
class Bundle:
    """Events that a sender has, and what happens to the bytes on their way."""

    events: tuple[tuple[bool, Any], ...]
    """Each with whether it must be taken."""
    is_poisoned: bool
    headers: tuple[tuple[str, str], ...]
    damage: tuple[tuple[float, int], ...]
    noise: bytes

    def requests(self) -> Iterator[Request]:
        """The same events in every way that they can be sent: all in one call and each alone, as JSON and as a form."""
        batch = [event for _, event in self.events]
        good = () if self.is_poisoned else tuple(place for place, (is_good, _) in enumerate(self.events) if is_good)
        of = None if self.is_poisoned else len(batch)
        as_json, as_form = _as_json(Fields((("events", batch),))), _as_form([("events", batch)])
        yield Request("track_events", as_json, _JSON, self.headers, of, good)
        yield Request("track_events", as_form, _FORM, self.headers, of, good)
        for is_good, event in self.events:
            expected = (1, (0,)) if is_good else (None, ())
            yield Request("track_event", _as_json(event), _JSON, self.headers, *expected)
            if isinstance(event, Fields):
                yield Request("track_event", _as_form(event.pairs), _FORM, self.headers, *expected)
        for part, byte in self.damage:
            body, content_type = (as_json, _JSON) if byte % 2 else (as_form, _FORM)
            place = int(part * len(body))
            yield Request("track_events", body[:place], content_type)
            yield Request("track_events", body[:place] + bytes([byte]) + body[place + 1 :], content_type)
            yield Request("track_event", body, _OTHER_TYPES[byte % len(_OTHER_TYPES)])
        yield Request("track_events", self.noise, _JSON)
        yield Request("track_event", self.noise, _FORM)


@st.composite
def bundles(draw: st.DrawFn, widgets: Widgets) -> Bundle:
    """Good and bad events side by side."""
    is_poisoned = draw(st.booleans())
    either = st.one_of(
        st.tuples(st.just(True), good_events(widgets)),
        st.tuples(st.just(False), bad_events(widgets, poison=is_poisoned)),
    )
    return Bundle(
        events=tuple(draw(st.lists(either, min_size=1, max_size=6))),
        is_poisoned=is_poisoned,
        headers=draw(_HEADERS),
        damage=tuple(draw(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=2))),
        noise=draw(st.one_of(st.sampled_from(_OTHER_BODIES), st.binary(max_size=64))),
    )


def at_the_limits(widgets: Widgets) -> Iterator[Request]:
    """64 KiB, a byte less and one more; a thousand events, and one more."""
    widget_id, closed = str(widgets.open[0]), str(widgets.closed[0])
    for size in (KIB_64 - 1, KIB_64, KIB_64 + 1, 16 * KIB_64):
        event = {"widget_id": widget_id, "event_type": "widget_load", "session_id": "s", "page_url": ""}
        event["page_url"] = "p" * (size - len(_as_json({"events": [event]})))
        yield Request("track_events", _as_json({"events": [event]}), _JSON, of=1, good=(0,))
        yield Request("track_event", _as_json(event), _JSON, of=1, good=(0,))
        yield Request("track_event", _as_form(event.items()), _FORM, of=1, good=(0,))
    for many in (999, 1000):
        yield Request("track_events", _as_json({"events": [{"widget_id": closed}] * many}), _JSON, of=many)
    yield Request("track_events", _as_json({"events": [{}] * 1001}), _JSON)
