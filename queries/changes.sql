-- fragment: newest_version
-- The version of one user's newest change; 0 where nothing was ever written.
coalesce((SELECT version FROM task_counters WHERE user_id = %(user_id)s), 0)

-- name: select_version
-- As newest_version: all that a cursor, an entity tag or a replica is compared with.
SELECT {newest_version};

-- name: select_replayed_version
-- The same on a replica; null on a server that is not one, whose data may be anybody's.
SELECT CASE WHEN pg_is_in_recovery() THEN {newest_version} END;

-- name: select_changes
-- What one user changed after a position, in the order of the commits: a JSON array of at most
-- limit, whether there are more, and the position to go on from: that of the array's last if
-- there are more, else that of the user's newest change. Deletions only if asked for: a first
-- page needs none. Every write locks the counter first and holds it until it commits: so a
-- statement's snapshot has all changes up to the counter's version, and none beyond.
WITH changed AS (
    (
        SELECT version, id, row_to_json(task) AS change
        FROM (
            SELECT {task_fields}, deleted_at IS NOT NULL AS deleted
            FROM tasks
            WHERE user_id = %(user_id)s AND (version, id) > (%(version)s, %(task_id)s)
                AND (deleted_at IS NULL OR %(with_deletions)s::boolean)
            ORDER BY version, id
            LIMIT %(limit)s::bigint + 1
        ) AS task
    )
    UNION ALL
    (
        SELECT version, id, row_to_json(tombstone)
        FROM (
            SELECT id, user_id, version, true AS deleted
            FROM purged_tasks
            WHERE user_id = %(user_id)s AND (version, id) > (%(version)s, %(task_id)s)
                AND %(with_deletions)s::boolean
            ORDER BY version, id
            LIMIT %(limit)s::bigint + 1
        ) AS tombstone
    )
    ORDER BY version, id
    LIMIT %(limit)s::bigint + 1
),
page AS (
    SELECT version, id, change, row_number() OVER (ORDER BY version, id) AS place FROM changed
)
SELECT
    coalesce(json_agg(change ORDER BY place) FILTER (WHERE place <= %(limit)s), '[]'),
    count(*) > %(limit)s,
    CASE
        WHEN count(*) > %(limit)s THEN max(version) FILTER (WHERE place = %(limit)s)
        ELSE {newest_version}
    END,
    CASE
        WHEN count(*) > %(limit)s THEN max(id) FILTER (WHERE place = %(limit)s)
        ELSE %(largest_id)s
    END
FROM page;
