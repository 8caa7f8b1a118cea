SELECT coalesce(json_agg(task), '[]')::text
FROM (
    SELECT id, user_id, title, description, completed, created_at, updated_at
    FROM tasks
    WHERE user_id = %(user_id)s
    ORDER BY id DESC
) AS task
