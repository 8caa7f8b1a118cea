"""A whole server beside all that it may have: PgBouncer in front of its database, and Redis."""

from pathlib import Path

from pgbouncer import PgBouncer
from processes import copy_of_project, gunicorn, tasks_of
from redis import Redis
from redis_server import RedisServer
from support import token_for


def test_server_works_through_pgbouncer_and_counts_in_redis(
    pooler: PgBouncer,
    redis: RedisServer,
    tmp_path: Path,
):
    settings = {"DATABASE_PREPARE": "off", "REDIS_URL": redis.url, "RATE_LIMIT": "100/hour"}
    with gunicorn(copy_of_project(tmp_path), pooler.url, **settings) as process:
        assert process.ask("GET", "/readyz").status_code == 200
        token = token_for("whole")
        sent = {"token": token, "json": {"title": "x"}, "headers": {"Idempotency-Key": "once"}}
        responses = [process.ask("POST", tasks_of("whole"), **sent) for _ in range(2)]
        assert [each.status_code for each in responses] == [201, 201]
        [task] = process.ask("GET", tasks_of("whole"), token=token).json
        assert task == responses[0].json == responses[1].json
        response = process.ask("PATCH", tasks_of("whole", f"{task['id']}/complete"), token=token)
        assert (response.status_code, response.json["completed"]) == (200, True)
        assert ";r=96;" in response.headers["RateLimit"]
        with Redis.from_url(redis.url) as client:
            assert client.dbsize() > 0
        redis.kill()
        assert process.ask("GET", tasks_of("whole"), token=token).status_code == 200
        assert process.stop() == 0
        assert '"level": "error"' not in process.output()
