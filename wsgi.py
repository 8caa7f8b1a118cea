"""The WSGI application, for any server: gunicorn here, as gunicorn.conf.py sets it up."""

import logging

from app import create_app
from config import Settings
from migrate import require_migrated

settings = Settings.load()
logging.basicConfig(
    level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
)
logging.getLogger("psycopg.pool").setLevel(logging.ERROR)  # each failed attempt is our own line
require_migrated(settings)
application = create_app(settings)
