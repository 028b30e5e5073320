"""The application, for gunicorn and for flask."""

from web.app import create_app

app = create_app()
