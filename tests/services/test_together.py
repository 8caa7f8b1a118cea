"""A whole server beside all that it may have: PgBouncer in front of its database, and Redis."""

from pathlib import Path

from pgbouncer import PgBouncer
from processes import copy_of_project, gunicorn
from redis import Redis
from redis_server import RedisServer


def test_server_works_through_pgbouncer_and_counts_in_redis(
    pooler: PgBouncer, redis: RedisServer, tmp_path: Path
):
    settings = {"DATABASE_PREPARE": "off", "REDIS_URL": redis.url, "RATE_LIMIT": "100/hour"}
    with gunicorn(copy_of_project(tmp_path), pooler.url, **settings) as process:
        assert process.request("GET", "/readyz").status_code == 200
        sent = {"json": {"title": "x"}, "headers": {"Idempotency-Key": "once"}}
        responses = [process.call("POST", **sent) for _ in range(2)]
        assert [each.status_code for each in responses] == [201, 201]
        [task] = process.call("GET").json
        assert task == responses[0].json == responses[1].json
        response = process.call("PATCH", f"{task['id']}/complete")
        assert (response.status_code, response.json["completed"]) == (200, True)
        assert ";r=96;" in response.headers["RateLimit"]
        with Redis.from_url(redis.url) as client:
            assert client.dbsize() > 0
        redis.kill()
        assert process.call("GET").status_code == 200
        assert process.stop() == 0
        assert '"level": "error"' not in process.output()
