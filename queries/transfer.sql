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

-- name: insert_imported_tasks
-- Creates tasks as with_inserted_tasks; one row if it did. Nobody reads the tasks themselves, which
-- would be the larger part of the traffic.
{with_inserted_tasks}
SELECT version FROM inserted LIMIT 1;
