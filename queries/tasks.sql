-- fragment: task_columns
-- The columns of a task, as stored.
tasks.id, tasks.user_id, tasks.title, tasks.description, tasks.completed, tasks.priority,
    tasks.due_at, tasks.due_all_day, tasks.tags, tasks.created_at, tasks.updated_at,
    tasks.completed_at, tasks.deleted_at, tasks.version

-- fragment: task_fields
-- What a client sees of a task. A day is stored as midnight UTC, and shown as a date. The last two
-- times are next to each other, as COMPLETED_NOW in blueprints/tasks.py compares them.
id, user_id, title, description, completed, priority,
    CASE
        WHEN due_all_day THEN to_json((due_at AT TIME ZONE 'UTC')::date)
        ELSE to_json(due_at)
    END AS due_at,
    tags, created_at, updated_at, completed_at, version

-- fragment: counted_change
-- Increments the owner's counter, and reads the clock. Every write locks it first: so one user's
-- writes commit in the order of their versions, and never deadlock. RETURNING is evaluated once the
-- lock is held: so a user's times are in the order of the versions, if the clock is.
UPDATE task_counters SET version = version + 1
WHERE user_id = %(user_id)s
RETURNING version AS new_version, clock_timestamp() AS moment

-- fragment: time_of_change
-- The time of a change, later than that of the one before even if the clock is not.
greatest(moment, tasks.updated_at + interval '1 microsecond')

-- fragment: is_expected
-- With If-Match, the task must have one of these versions; {} means none, null any.
(%(versions)s::bigint[] IS NULL OR version = ANY (%(versions)s::bigint[]))

-- fragment: is_named_by_change
-- A change's task, of the expected version (null: any). The ids are repeated beside the join:
-- without them, the planner may read all of the user's tasks to find a hundred.
user_id = %(user_id)s AND id = ANY (%(task_ids)s::bigint[]) AND id = task_id
    AND (expected IS NULL OR expected = version)

-- fragment: given
-- The fields that a client may write, each a parameter: null where it is not sent. In one JSON
-- object, they would take PostgreSQL a tenth of an update to read.
(
    SELECT
        %(title)s::text AS title, %(description)s::text AS description,
        %(completed)s::boolean AS completed, %(priority)s::task_priority AS priority,
        %(due_at)s::timestamptz AS due_at, %(due_all_day)s::boolean AS due_all_day,
        %(tags)s::text[] AS tags, %(sent)s::text[] AS sent
) AS given

-- fragment: updated_fields
-- Writes those of the fields that `sent` names, null too, and keeps the others. So completed_at
-- equals updated_at only if this change completed the task.
title = coalesce(given.title, tasks.title),
    description = CASE
        WHEN 'description' = ANY (sent) THEN given.description
        ELSE tasks.description
    END,
    completed = coalesce(given.completed, tasks.completed),
    priority = CASE
        WHEN 'priority' = ANY (sent) THEN coalesce(given.priority, 'none')
        ELSE tasks.priority
    END,
    due_at = CASE WHEN 'due_at' = ANY (sent) THEN given.due_at ELSE tasks.due_at END,
    due_all_day = coalesce(given.due_all_day, tasks.due_all_day),
    tags = CASE WHEN 'tags' = ANY (sent) THEN coalesce(given.tags, '{}') ELSE tasks.tags END,
    completed_at = CASE
        WHEN NOT coalesce(given.completed, tasks.completed) THEN NULL
        WHEN tasks.completed THEN tasks.completed_at
        ELSE {time_of_change}
    END,
    updated_at = {time_of_change},
    version = new_version

-- name: select_task
-- One task of its owner: its version and a JSON object. No row where it is missing, in the trash or
-- another user's.
SELECT version, row_to_json(task)
FROM (
    SELECT {task_fields}
    FROM tasks
    WHERE user_id = %(user_id)s AND id = %(task_id)s AND deleted_at IS NULL
) AS task;

-- name: insert_task
-- The new task: its version, a JSON object, its id. No row where the user has max_stored already.
-- The first version is 2: a trigger counts what comes with version 1, as from release 1.0.
WITH change AS (
    INSERT INTO task_counters AS counter (user_id, version, stored)
    VALUES (%(user_id)s, 2, 1)
    ON CONFLICT (user_id) DO UPDATE
        SET version = counter.version + 1, stored = counter.stored + 1
        WHERE counter.stored < %(max_stored)s
    RETURNING version AS new_version, clock_timestamp() AS moment
),
inserted AS (
    INSERT INTO tasks (
        user_id, title, description, priority, due_at, due_all_day, tags, created_at, updated_at,
        version
    )
    SELECT
        %(user_id)s, given.title, given.description, coalesce(given.priority, 'none'),
        given.due_at, coalesce(given.due_all_day, false), coalesce(given.tags, '{}'), moment,
        moment, new_version
    FROM change, {given}
    RETURNING {task_columns}
)
SELECT version, row_to_json(task), id FROM (SELECT {task_fields} FROM inserted) AS task;

-- fragment: with_inserted_tasks
-- Creates the tasks of a JSON array, all or none, in the array's order. All get one version. None
-- where the user would have more than max_stored.
WITH change AS (
    INSERT INTO task_counters AS counter (user_id, version, stored)
    SELECT %(user_id)s, 2, jsonb_array_length(%(tasks)s)
    WHERE jsonb_array_length(%(tasks)s) <= %(max_stored)s
    ON CONFLICT (user_id) DO UPDATE
        SET version = counter.version + 1, stored = counter.stored + excluded.stored
        WHERE counter.stored + excluded.stored <= %(max_stored)s
    RETURNING version AS new_version, clock_timestamp() AS moment
),
inserted AS (
    INSERT INTO tasks (
        user_id, title, description, completed, completed_at, priority, due_at, due_all_day, tags,
        created_at, updated_at, version
    )
    SELECT
        %(user_id)s, given.title, given.description, coalesce(given.completed, false),
        CASE WHEN given.completed THEN moment END, coalesce(given.priority, 'none'),
        given.due_at, coalesce(given.due_all_day, false), coalesce(given.tags, '{}'), moment,
        moment, new_version
    FROM
        change,
        jsonb_populate_recordset(NULL::tasks, %(tasks)s) WITH ORDINALITY AS given
    ORDER BY given.ordinality
    RETURNING {task_columns}
)

-- name: insert_tasks
-- Creates tasks as with_inserted_tasks; returns the JSON object of each, in the array's order.
{with_inserted_tasks}
SELECT row_to_json(task) FROM (SELECT {task_fields} FROM inserted) AS task ORDER BY id;

-- name: update_task
-- Writes the fields that are sent. Returns what select_task does; no row where the task is missing
-- or its version is not an expected one.
WITH change AS (
    {counted_change}
),
updated AS (
    UPDATE tasks
    SET {updated_fields}
    FROM change, {given}
    WHERE user_id = %(user_id)s AND id = %(task_id)s AND deleted_at IS NULL AND {is_expected}
    RETURNING {task_columns}
)
SELECT version, row_to_json(task) FROM (SELECT {task_fields} FROM updated) AS task;

-- name: update_tasks
-- Does to each task of a JSON array what update_task does to one, with its own fields and expected
-- version; task_ids has the ids of all. Returns the id and JSON object of each that it changed.
WITH change AS (
    {counted_change}
),
updated AS (
    UPDATE tasks
    SET {updated_fields}
    FROM
        change,
        jsonb_to_recordset(%(changes)s) AS given (
            task_id bigint, expected bigint, sent text[], title text, description text,
            completed boolean, priority task_priority, due_at timestamptz, due_all_day boolean,
            tags text[]
        )
    WHERE {is_named_by_change} AND deleted_at IS NULL
    RETURNING {task_columns}
)
SELECT id, row_to_json(task) FROM (SELECT {task_fields} FROM updated) AS task ORDER BY id;

-- name: toggle_task
-- Toggles completed in one statement: however many run at once, none is lost. Returns what
-- update_task does.
WITH change AS (
    {counted_change}
),
updated AS (
    UPDATE tasks
    SET completed = NOT completed,
        completed_at = CASE WHEN NOT completed THEN {time_of_change} END,
        updated_at = {time_of_change},
        version = new_version
    FROM change
    WHERE user_id = %(user_id)s AND id = %(task_id)s AND deleted_at IS NULL AND {is_expected}
    RETURNING {task_columns}
)
SELECT version, row_to_json(task) FROM (SELECT {task_fields} FROM updated) AS task;

-- name: delete_task
-- Moves a task to the trash; returns its version and id. No row where it is missing or its version
-- is not an expected one.
WITH change AS (
    {counted_change}
)
UPDATE tasks
SET deleted_at = {time_of_change},
    updated_at = {time_of_change},
    version = new_version
FROM change
WHERE user_id = %(user_id)s AND id = %(task_id)s AND deleted_at IS NULL AND {is_expected}
RETURNING version, id;

-- name: delete_tasks
-- Does to each task of a JSON array what delete_task does to one. Returns the ids, each with the
-- JSON null in place of a task.
WITH change AS (
    {counted_change}
),
deleted AS (
    UPDATE tasks
    SET deleted_at = {time_of_change},
        updated_at = {time_of_change},
        version = new_version
    FROM
        change,
        jsonb_to_recordset(%(changes)s) AS given (task_id bigint, expected bigint)
    WHERE {is_named_by_change} AND deleted_at IS NULL
    RETURNING id
)
SELECT id, 'null' FROM deleted ORDER BY id;
