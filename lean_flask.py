"""Flask without the per-request work that only other applications need."""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from flask import Flask, Request, Response, request
from flask.sessions import NullSession, SessionInterface
from werkzeug.exceptions import NotFound
from werkzeug.routing import Map, MapAdapter, Rule

from converters import CONVERTERS, MAX_USER_ID_LENGTH

# Flask's `request` looks the request up for each attribute, which takes half a microsecond.
current_request: Callable[[], Request] = request._get_current_object  # type: ignore[attr-defined]

NO_SESSION = NullSession()
MAX_PATH_LENGTH = 2 * MAX_USER_ID_LENGTH  # characters; no path of ours is longer
REMEMBERED_PATHS = 2048


class NoSessions(SessionInterface):
    """Tokens tell who calls: there are no cookies, and one read-only session for all."""

    def open_session(self, app: Flask, request: Request) -> NullSession:
        return NO_SESSION


class BytesResponse(Response):
    """A response whose body is one piece of bytes, of a known length from the beginning."""

    def __init__(self, body: bytes, status: int, content_type: str, **headers: str) -> None:
        super().__init__(None, status, content_type=content_type)
        self.response = [body]
        self.headers.add("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.headers.add(name, value)

    def get_wsgi_response(self, environ: Any) -> Any:
        """Return what werkzeug would, without its search for headers to correct: ours are right."""
        if environ["REQUEST_METHOD"] == "HEAD" or self.is_streamed or self._on_close:
            return super().get_wsgi_response(environ)
        return self.response, self.status, self.headers.to_wsgi_list()


class UserMap(Map):
    """Two maps of the same rules: a fast one for user ids without a slash, one for all others.

    With a converter that takes a slash, werkzeug tries each rule as one long regular expression.
    """

    def __init__(self, **options: Any) -> None:
        options |= {"converters": CONVERTERS, "merge_slashes": False}
        super().__init__(**options)
        self.of_any_user = Map(**options)
        self._plain, self._any = self.bind(""), self.of_any_user.bind("")
        self.find = lru_cache(REMEMBERED_PATHS)(self._find)

    def add(self, rulefactory: Any) -> None:
        super().add(rulefactory)
        if "<user_id:" in rulefactory.rule:
            rule = rulefactory.empty()
            rule.rule = rule.rule.replace("<user_id:", "<any_user_id:")
            rule.provide_automatic_options = rulefactory.provide_automatic_options
            self.of_any_user.add(rule)

    def _find(self, path: str, method: str) -> tuple[Rule, Mapping[str, Any]]:
        try:
            return self._plain.match(path, method, return_rule=True)
        except NotFound:
            return self._any.match(path, method, return_rule=True)


class PathAdapter(MapAdapter):
    """Matches a path, from a cache: most are requested again and again, such as a user's list."""

    map: UserMap

    def match(
        self,
        path_info: str | None = None,
        method: str | None = None,
        return_rule: bool = False,
        *_: Any,
        **__: Any,
    ) -> Any:
        rule, values = self.map.find(path_info or self.path_info, method or self.default_method)
        return rule if return_rule else rule.endpoint, dict(values)


class LeanFlask(Flask):
    """Flask for views that are not coroutines, on any host, for user ids of any form.

    Of Flask's hooks it calls only those in use here; tests/test_policy.py finds any other.
    """

    session_interface = NoSessions()
    url_map_class: type[Map] = UserMap

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        return func

    def create_url_adapter(self, request: Request | None) -> MapAdapter | None:
        """Bind no host, as no route looks at it: Flask would parse and check it each time.

        None outside a request: no URL is made there.
        """
        if request is None:
            return None
        path = request.path
        # werkzeug would drop leading slashes, but the middleware in front has seen them.
        if request.environ["PATH_INFO"].startswith("//") or len(path) > MAX_PATH_LENGTH:
            path = ""  # which no route has: 404
        return PathAdapter(
            self.url_map,
            server_name="",
            script_name=request.root_path,
            subdomain="",
            url_scheme=request.scheme,
            path_info=path,
            default_method=request.method,
        )

    def preprocess_request(self) -> Any:
        """Call the hooks of the application and of the blueprint."""
        hooks, blueprint = self.before_request_funcs, current_request().blueprint
        for functions in (hooks.get(None, ()), hooks.get(blueprint, ()) if blueprint else ()):
            for function in functions:
                if (response := function()) is not None:
                    return response
        return None

    def finalize_request(self, rv: Any, from_error_handler: bool = False) -> Response:
        """Pass on a Response, which nearly all views return, as it is, and send no signal."""
        if from_error_handler or not isinstance(rv, Response):
            return super().finalize_request(rv, from_error_handler)
        return self.process_response(rv)

    def process_response(self, response: Response) -> Response:
        """Call the hooks of the application."""
        for function in reversed(self.after_request_funcs.get(None, ())):
            response = function(response)
        return response

    def do_teardown_request(self, exc: BaseException | None = None) -> None:
        """Call nothing: each connection has gone back to the pool by itself."""

    def do_teardown_appcontext(self, exc: BaseException | None = None) -> None:
        """Call nothing, as above."""
