SELECT row_to_json(task)::text
FROM (
    SELECT id, user_id, title, description, completed, created_at, updated_at
    FROM tasks
    WHERE user_id = %(user_id)s AND id = %(task_id)s
) AS task
