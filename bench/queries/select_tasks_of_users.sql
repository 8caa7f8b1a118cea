SELECT user_id, id
FROM tasks
WHERE user_id = ANY(%(users)s)
ORDER BY user_id, id;
