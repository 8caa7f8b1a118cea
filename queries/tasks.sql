-- name: select_tasks
-- All of one user's tasks as a JSON array, newest first; '[]' where there are none.
SELECT coalesce(json_agg(task), '[]')
FROM (
    SELECT id, user_id, title, description, completed, created_at, updated_at
    FROM tasks
    WHERE user_id = %(user_id)s
    ORDER BY id DESC
) AS task;

-- name: select_task
-- One task of its owner as a JSON object; no row where it is missing or another user's.
SELECT row_to_json(task)
FROM (
    SELECT id, user_id, title, description, completed, created_at, updated_at
    FROM tasks
    WHERE user_id = %(user_id)s AND id = %(task_id)s
) AS task;

-- name: insert_task
-- The new task's id, and the task as a JSON object.
WITH task AS (
    INSERT INTO tasks (user_id, title, description)
    VALUES (%(user_id)s, %(title)s, %(description)s)
    RETURNING id, user_id, title, description, completed, created_at, updated_at
)
SELECT id, row_to_json(task) FROM task;

-- name: update_task
-- Writes what was sent: description only with has_description (null clears it), completed unless
-- null. updated_at always moves on, also where the clock does not.
WITH task AS (
    UPDATE tasks
    SET title = %(title)s,
        description = CASE WHEN %(has_description)s THEN %(description)s ELSE description END,
        completed = coalesce(%(completed)s, completed),
        updated_at = greatest(clock_timestamp(), updated_at + interval '1 microsecond')
    WHERE user_id = %(user_id)s AND id = %(task_id)s
    RETURNING id, user_id, title, description, completed, created_at, updated_at
)
SELECT row_to_json(task) FROM task;

-- name: toggle_task
-- Turns completed over, in one statement: of any number at once, none is lost.
WITH task AS (
    UPDATE tasks
    SET completed = NOT completed,
        updated_at = greatest(clock_timestamp(), updated_at + interval '1 microsecond')
    WHERE user_id = %(user_id)s AND id = %(task_id)s
    RETURNING id, user_id, title, description, completed, created_at, updated_at
)
SELECT row_to_json(task) FROM task;

-- name: delete_task
-- One row where the task was deleted now; none where it is missing or another user's.
DELETE FROM tasks
WHERE user_id = %(user_id)s AND id = %(task_id)s
RETURNING id;
