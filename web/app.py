"""The application: `create_app()` wires settings, storage, jobs and pages together."""

from __future__ import annotations

import atexit
import logging
import os
import sys
from importlib import resources

from flask import Flask, Response, current_app, render_template, request, send_from_directory
from werkzeug.exceptions import HTTPException

from core.errors import BoucleError
from web.cli import Commands
from web.home.language import texts
from web.home.views import blueprint as home
from web.metrics import blueprint as metrics
from web.security import Boucle, add_headers, set_up_logging
from web.settings import Settings, load
from web.wiring import build_context
from webhooks.routes import blueprint as webhooks

#: The largest form is a comment; everything larger is refused before it is read.
LARGEST_BODY = 2 * 1024 * 1024
#: gunicorn stops for good when a worker ends with this code while it starts; with any other it would try for ever.
CANNOT_START = 3
#: Files of other people, served from their wheels: no network is asked for them.
ASSETS = {
    "bootstrap.min.css": ("flask_bootstrap", "static/bootstrap5/css"),
    "htmx.min.js": ("js_lib_htmx", "static/htmx"),
}

log = logging.getLogger("boucle.web")


def create_app(settings: Settings | None = None) -> Flask:
    """The application. With `settings` (tests) it is ready at once and raises BoucleError if it cannot be.

    Without, they are read from the environment: under `flask COMMAND` each command opens what it needs, so that
    `flask migrate` works on an empty database; under a server the process ends with one sentence if anything is amiss.
    """
    set_up_logging()
    given = settings is not None
    app = Boucle("web", template_folder="home/templates", static_folder="static")
    app.cli = Commands(app.name)
    app.config["MAX_CONTENT_LENGTH"] = app.config["MAX_FORM_MEMORY_SIZE"] = LARGEST_BODY
    app.config["BOUCLE"] = settings or _load_or_exit()
    app.after_request(add_headers)
    _add_pages(app)
    if given:
        app.extensions["boucle"] = build_context(app.config["BOUCLE"])
    elif os.environ.get("FLASK_RUN_FROM_CLI") != "true":
        _serve_or_exit(app)
    else:
        app.before_request(_set_up_late)
    return app


def _load_or_exit() -> Settings:
    try:
        return load(os.environ)
    except BoucleError as error:
        sys.stderr.write(f"boucle: {error}\n")
        raise SystemExit(_exit_code()) from None


def _serve_or_exit(app: Flask) -> None:
    try:
        app.extensions["boucle"] = build_context(app.config["BOUCLE"])
        _start_worker(app)
    except BoucleError as error:
        sys.stderr.write(f"boucle: {error}\n")
        raise SystemExit(CANNOT_START) from None


def _exit_code() -> int:
    """2 is wrong use of a command; a server that cannot start must not be started again and again."""
    return 2 if os.environ.get("FLASK_RUN_FROM_CLI") == "true" else CANNOT_START


def _set_up_late() -> None:
    """`flask run`: the first request opens what commands open for themselves."""
    if "boucle" not in current_app.extensions:
        current_app.extensions["boucle"] = build_context(current_app.config["BOUCLE"])


def _start_worker(app: Flask) -> None:
    """The embedded worker, in the process that serves: this runs after gunicorn has forked, as nothing is preloaded."""
    settings: Settings = app.config["BOUCLE"]
    if not settings.embedded_worker:
        return
    from web.worker import Worker

    worker = Worker(app.extensions["boucle"], settings.heartbeat_url)
    worker.start()
    atexit.register(worker.stop)
    app.extensions["boucle_worker"] = worker


# --- pages ----------------------------------------------------------------------------------------------------------


def _add_pages(app: Flask) -> None:
    from web.survey.views import blueprint as survey

    for blueprint in (survey, home, metrics, webhooks):
        app.register_blueprint(blueprint)
    app.add_url_rule("/static/vendor/<name>", "vendor", _vendor)
    app.register_error_handler(HTTPException, _error_page)
    app.register_error_handler(Exception, _unexpected)


def _vendor(name: str) -> Response:
    package, folder = ASSETS.get(name, ("", ""))
    if not package:
        return _error_response(404)
    response = send_from_directory(str(resources.files(package) / folder), name, max_age=86400)
    response.headers["Cross-Origin-Resource-Policy"] = "same-origin"
    return response


def _error_page(error: HTTPException) -> Response:
    if error.response is not None or error.code is None or error.code < 400:
        return error.get_response()  # type: ignore[return-value]  # a redirect, or an answer somebody has composed
    response = _error_response(error.code)
    for name, value in error.get_headers():
        if name.lower() in ("allow", "retry-after"):
            response.headers[name] = value
    return response


def _unexpected(error: Exception) -> Response:
    current_app.log_exception(sys.exc_info())
    return _error_response(500)


def _error_response(code: int) -> Response:
    if request.accept_mimetypes.best_match(["text/html", "text/plain"]) == "text/plain":
        return Response(f"{code}\n", code, mimetype="text/plain")
    return Response(render_template("home/error.html", code=code, t=texts()), code)
