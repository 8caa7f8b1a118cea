FROM python:3.13-slim AS build
RUN python -m venv /venv
COPY requirements.txt .
RUN /venv/bin/pip install --no-cache-dir --no-deps --require-hashes -r requirements.txt

FROM python:3.13-slim
RUN useradd --no-create-home --uid 10001 tasks
COPY --from=build /venv /venv
WORKDIR /app
COPY . .
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 API_HOST=0.0.0.0
# By number: Kubernetes' runAsNonRoot refuses a name.
USER 10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s \
    CMD ["python", "-c", "from http.client import HTTPConnection; from os import getenv; c = HTTPConnection('127.0.0.1', getenv('API_PORT', '8000'), timeout=2); c.request('GET', '/livez'); exit(c.getresponse().status != 200)"]
CMD ["gunicorn", "wsgi:application"]
