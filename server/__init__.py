"""Our changes to gunicorn: how it serves connections, reads requests and writes responses."""
