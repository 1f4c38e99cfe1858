"""A customer's site with a fake call widget, and the owners' usage page: both on another origin than the API, as in
real life."""

import html
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlencode, urlsplit

from local_stack.background_server import BackgroundServer, Handler
from local_stack.places import ROOT

PAGES = Path(__file__).parent / "demo_pages"
SCRIPTS = ROOT / "tracker" / "dist"
DASHBOARD = ROOT / "dashboard" / "dist"
_DASHBOARD_FILES = {
    "/dashboard/dashboard.js": "text/javascript",
    "/dashboard/style.css": "text/css",
}


class Page(NamedTuple):
    """What an address of the site answers. `{{attributes}}` becomes the tracker's `data-` attributes."""

    body: str
    headers: Mapping[str, str] = MappingProxyType({})


class DemoSite(BackgroundServer):
    """Serves until its `with` block ends. Query parameters of a page override the tracker's options.

    >>> with DemoSite(url=api_url, key=key, widget_id=widget_id) as site:
    ...     print(site.address())
    """

    def __init__(self, *, port: int = 0, pages: dict[str, Page] | None = None, **options: Any) -> None:
        self.pages = {
            "/": Page((PAGES / "shop.html").read_text()),
            "/about": Page((PAGES / "about.html").read_text()),
            "/embedding": Page((PAGES / "embedding.html").read_text()),
            **(pages or {}),
        }
        self.options = options
        super().__init__(port, _Handler)

    def address(self, path: str = "/", *, host: str = "127.0.0.1", **options: object) -> str:
        """A page's URL; `options` are the tracker's, in snake_case."""
        query = "?" + urlencode(options) if options else ""
        return f"http://{host}:{self.port}{path}{query}"

    def dashboard(self) -> str:
        """The usage page with its settings filled in, as its build does from the environment."""
        page = (DASHBOARD / "index.html").read_text()
        settings = {
            "SUPABASE_URL": self.options["url"],
            "SUPABASE_PUBLISHABLE_KEY": self.options["key"],
            "BILLING_CONTACT": "billing@company.example",
            "TRACKER_URL": self.address("/usage.min.js"),
        }
        for name, value in settings.items():
            page = page.replace(f"%{name}%", html.escape(value))
        return page

    def render(self, path: str, query: str) -> Page | None:
        page = self.pages.get(path)
        if page is None:
            return None
        options = self.options | dict(parse_qsl(query, keep_blank_values=True))
        attributes = " ".join(
            f'data-{name.replace("_", "-")}="{html.escape(str(value))}"' for name, value in options.items()
        )
        frame = html.escape(f"/?{urlencode(options)}")
        body = page.body.replace("{{attributes}}", attributes).replace("{{frame}}", frame)
        return page._replace(body=body)


class _Handler(Handler):
    server: DemoSite

    def do_GET(self) -> None:
        path, query = urlsplit(self.path)[2:4]
        if path in ("/usage.min.js", "/usage.debug.js", "/index.js"):
            self._answer(200, "text/javascript", (SCRIPTS / path[1:]).read_text())
        elif path == "/dashboard/":
            self._answer(200, "text/html", self.server.dashboard())
        elif path in _DASHBOARD_FILES:
            self._answer(200, _DASHBOARD_FILES[path], (DASHBOARD / path.removeprefix("/dashboard/")).read_text())
        elif page := self.server.render(path, query):
            self._answer(200, "text/html", page.body, page.headers)
        else:
            self._answer(404, "text/plain", "There is no such page.")

    def _answer(self, status: int, media_type: str, text: str, headers: Mapping[str, str] | None = None) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", f"{media_type}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
