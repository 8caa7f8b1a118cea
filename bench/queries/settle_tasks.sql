VACUUM (ANALYZE) tasks, task_counters;
