"""Flask without the work at each request that only other applications need."""

from collections.abc import Callable
from typing import Any

from flask import Flask, Request, Response
from flask.globals import request_ctx
from flask.sessions import NullSession, SessionInterface
from werkzeug.exceptions import NotFound
from werkzeug.routing import Map, MapAdapter

from converters import CONVERTERS

NO_SESSION = NullSession()


class NoSessions(SessionInterface):
    """Tokens tell who calls: there are no cookies, and one session that refuses all writes."""

    def open_session(self, app: Flask, request: Request) -> NullSession:
        return NO_SESSION


class BytesResponse(Response):
    """An answer whose body is one piece of bytes, of a known length from the beginning."""

    def __init__(self, body: bytes, status: int, content_type: str, **headers: str) -> None:
        super().__init__(None, status, content_type=content_type)
        self.response = [body]
        self.headers.add("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.headers.add(name, value)

    def get_wsgi_response(self, environ: Any) -> Any:
        """Give werkzeug's answer, for which it looks for more headers to correct than we have."""
        if environ["REQUEST_METHOD"] == "HEAD" or self.is_streamed:
            return super().get_wsgi_response(environ)
        return self.response, self.status, self.headers.to_wsgi_list()


class UserMap(Map):
    """The rules for users whose id has no slash, and a second map of the same for all others.

    A converter that takes a slash has each rule tried as one long regular expression.
    """

    def __init__(self, **options: Any) -> None:
        options |= {"converters": CONVERTERS, "merge_slashes": False}
        super().__init__(**options)
        self.of_any_user = Map(**options)

    def add(self, rulefactory: Any) -> None:
        super().add(rulefactory)
        if "<user_id:" in rulefactory.rule:
            rule = rulefactory.empty()
            rule.rule = rule.rule.replace("<user_id:", "<any_user_id:")
            rule.provide_automatic_options = rulefactory.provide_automatic_options
            self.of_any_user.add(rule)


class UserMapAdapter(MapAdapter):
    """A path to be matched, with a user's id that may have a slash."""

    map: UserMap

    def match(self, *arguments: Any, **options: Any) -> Any:
        try:
            return super().match(*arguments, **options)
        except NotFound:
            everyone = self.map.of_any_user.bind(self.server_name)
            return everyone.match(self.path_info, self.default_method, **options)


class LeanFlask(Flask):
    """Flask for views that are no coroutines, on whatever host, of users whose id has any form."""

    session_interface = NoSessions()
    url_map_class: type[Map] = UserMap

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        return func

    def create_url_adapter(self, request: Request | None) -> MapAdapter | None:
        """Bind no host, as no route looks at it: Flask would parse and check it each time."""
        if request is None:
            return super().create_url_adapter(None)
        return UserMapAdapter(
            self.url_map,
            "",
            request.root_path,
            "",
            request.scheme,
            request.path,
            request.method,
            request.query_string.decode("latin-1"),
        )

    def preprocess_request(self) -> Any:
        """Call the hooks of the application and of the blueprint; no other kind is in use here."""
        asked = request_ctx.request
        hooks = self.before_request_funcs
        # None, of a route without a blueprint, is the application's own key; no blueprint is "".
        for functions in (hooks.get(None, ()), hooks.get(asked.blueprint or "", ())):
            for function in functions:
                if (answer := function()) is not None:
                    return answer
        return None

    def process_response(self, response: Response) -> Response:
        """Call the hooks of the application; no other kind is in use here."""
        for function in reversed(self.after_request_funcs.get(None, ())):
            response = function(response)
        return response
