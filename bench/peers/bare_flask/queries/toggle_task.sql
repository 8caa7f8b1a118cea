WITH task AS (
    UPDATE tasks
    SET completed = NOT completed, updated_at = now()
    WHERE user_id = %(user_id)s AND id = %(task_id)s
    RETURNING id, user_id, title, description, completed, created_at, updated_at
)
SELECT row_to_json(task)::text FROM task
