WITH task AS (
    INSERT INTO tasks (user_id, title, description)
    VALUES (%(user_id)s, %(title)s, %(description)s)
    RETURNING id, user_id, title, description, completed, created_at, updated_at
)
SELECT row_to_json(task)::text FROM task
