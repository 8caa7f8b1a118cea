-- name: select_exported_tasks
-- The next 500 of one user's tasks after an id, oldest first: JSON objects separated by
-- commas, and the last one's id. NULLs after the end. Ids never change: a task is on one page only.
SELECT
    string_agg(
        (
            SELECT row_to_json(task)::text
            FROM (
                SELECT {task_fields}
                FROM tasks
                WHERE user_id = %(user_id)s AND id = page.id
            ) AS task
        ),
        ',' ORDER BY id
    ),
    max(id)
FROM (
    SELECT id
    FROM tasks
    WHERE user_id = %(user_id)s AND id > %(after_id)s AND deleted_at IS NULL
    ORDER BY id
    LIMIT 500
) AS page;
