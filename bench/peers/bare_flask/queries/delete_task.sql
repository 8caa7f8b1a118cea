DELETE FROM tasks WHERE user_id = %(user_id)s AND id = %(task_id)s RETURNING 'null'
