-- name: select_trash
-- A page of one user's trash as a JSON array, last deleted first, '[]' where it is empty: at most
-- limit, all before the position. Also whether there are more, and the position of the last.
WITH page AS (
    SELECT
        version, id, row_to_json(task) AS task,
        row_number() OVER (ORDER BY version DESC, id DESC) AS place
    FROM (
        SELECT {task_fields}, deleted_at
        FROM tasks
        WHERE user_id = %(user_id)s AND deleted_at IS NOT NULL
            AND (version, id) < (%(version)s, %(task_id)s)
        ORDER BY version DESC, id DESC
        LIMIT %(limit)s::bigint + 1
    ) AS task
)
SELECT
    coalesce(json_agg(task ORDER BY place) FILTER (WHERE place <= %(limit)s), '[]'),
    count(*) > %(limit)s,
    max(version) FILTER (WHERE place = %(limit)s),
    max(id) FILTER (WHERE place = %(limit)s)
FROM page;

-- name: select_trashed_task
-- The version of one task in the trash of its owner; no row where it is not there.
SELECT version
FROM tasks
WHERE user_id = %(user_id)s AND id = %(task_id)s AND deleted_at IS NOT NULL;

-- name: restore_task
-- Takes a task out of the trash as it was put there. Returns what update_task does; no row where it
-- is not in the trash or its version is not an expected one.
WITH change AS (
    {counted_change}
),
restored AS (
    UPDATE tasks
    SET deleted_at = NULL,
        updated_at = {time_of_change},
        version = new_version
    FROM change
    WHERE user_id = %(user_id)s AND id = %(task_id)s AND deleted_at IS NOT NULL AND {is_expected}
    RETURNING {task_columns}
)
SELECT version, row_to_json(task) FROM (SELECT {task_fields} FROM restored) AS task;

-- name: restore_tasks
-- Does to each task of a JSON array what restore_task does to one. Returns what update_tasks does.
-- num_nulls keeps the planner from the trash's index, all of whose entries of the user it may read.
WITH change AS (
    {counted_change}
),
restored AS (
    UPDATE tasks
    SET deleted_at = NULL,
        updated_at = {time_of_change},
        version = new_version
    FROM
        change,
        jsonb_to_recordset(%(changes)s) AS given (task_id bigint, expected bigint)
    WHERE {is_named_by_change} AND num_nulls(deleted_at) = 0
    RETURNING {task_columns}
)
SELECT id, row_to_json(task) FROM (SELECT {task_fields} FROM restored) AS task ORDER BY id;

-- name: select_trash_chunks
-- All of one user's trash, or what has been there for more than some days, in chunks to be deleted:
-- for each, the tasks' ids as an array, and their newest version.
SELECT array_agg(id), max(version)
FROM (
    SELECT id, version, (row_number() OVER (ORDER BY version, id) - 1) / %(size)s AS chunk
    FROM tasks
    WHERE user_id = %(user_id)s AND deleted_at IS NOT NULL
        AND (%(days)s::integer IS NULL OR deleted_at < now() - make_interval(days => %(days)s))
) AS trashed
GROUP BY chunk
ORDER BY chunk;

-- name: delete_trashed_tasks
-- Deletes tasks in the trash for good, where their versions are expected ones and not newer than
-- the newest that was seen, and leaves a tombstone of each. Returns the new version and how many
-- were deleted; no row where none were. The counter is locked before the tasks, as by every write,
-- and counts what was in fact deleted. `+ 0` keeps the version from being an index condition, in
-- whose range PostgreSQL 15 would look for each id.
WITH counter AS (
    SELECT version + 1 AS new_version
    FROM task_counters
    WHERE user_id = %(user_id)s
    FOR UPDATE
),
deleted AS (
    DELETE FROM tasks
    USING counter
    WHERE user_id = %(user_id)s AND id = ANY (%(task_ids)s::bigint[])
        AND deleted_at IS NOT NULL AND version + 0 <= %(newest)s AND {is_expected}
    RETURNING id, new_version
),
tombstones AS (
    INSERT INTO purged_tasks (user_id, version, id)
    SELECT %(user_id)s, new_version, id FROM deleted
)
UPDATE task_counters
SET version = new_version, stored = stored - tasks_deleted
FROM (SELECT new_version, count(*) AS tasks_deleted FROM deleted GROUP BY new_version) AS total
WHERE user_id = %(user_id)s
RETURNING new_version, tasks_deleted;

-- name: select_trash_owners
-- The next users by id, and true for those whose first task in the trash is older than some days:
-- the one of the lowest version, as deleting a task raises it. True, too, where its time is yet to
-- come, as after a clock that was ahead: older ones may follow. It reads across users: for
-- `manage.py purge`, never for a request. A subselect with LIMIT reads one entry of the index for
-- each user, where EXISTS may be hashed over everybody's trash.
SELECT user_id, (
    SELECT deleted_at NOT BETWEEN now() - make_interval(days => %(days)s) AND now()
    FROM tasks
    WHERE tasks.user_id = owner.user_id AND deleted_at IS NOT NULL
    ORDER BY version, id
    LIMIT 1
)
FROM (
    SELECT user_id FROM task_counters
    WHERE user_id > %(after)s
    ORDER BY user_id
    LIMIT %(max_rows)s
) AS owner
ORDER BY user_id;
