"""gunicorn, made ours: how connections are served, requests read and responses written."""
