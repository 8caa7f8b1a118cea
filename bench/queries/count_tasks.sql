INSERT INTO task_counters (user_id, version, stored)
SELECT user_id, max(version), count(*)
FROM tasks
GROUP BY user_id;
