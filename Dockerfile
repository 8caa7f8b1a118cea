FROM python:3.13-slim AS build
RUN python -m venv /venv
COPY requirements.txt .
RUN /venv/bin/pip install --no-cache-dir --no-deps --require-hashes -r requirements.txt

FROM python:3.13-slim
RUN useradd --system --no-create-home --uid 10001 tasks
COPY --from=build /venv /venv
WORKDIR /app
COPY . .
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 API_HOST=0.0.0.0
USER tasks
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s \
    CMD ["python", "-c", "from os import getenv; from urllib.request import urlopen; urlopen(f'http://127.0.0.1:{getenv(\"API_PORT\", \"8000\")}/livez', timeout=2)"]
CMD ["gunicorn", "wsgi:application"]
