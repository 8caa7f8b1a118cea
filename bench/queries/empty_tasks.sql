TRUNCATE tasks, task_counters, purged_tasks RESTART IDENTITY CASCADE;
