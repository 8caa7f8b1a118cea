-- migrate:up
SET LOCAL lock_timeout = '2s';
SET LOCAL statement_timeout = '10s';

-- A second barrier behind the user_id in each WHERE: the API's role sees the rows of the user in
-- app.user_id, and none if it is not set. The policies do not apply to the tables' owner.
CREATE POLICY tasks_owner ON tasks USING (user_id = current_setting('app.user_id', true));
ALTER TABLE tasks ENABLE ROW LEVEL SECURITY;

CREATE POLICY task_counters_owner ON task_counters
USING (user_id = current_setting('app.user_id', true));
ALTER TABLE task_counters ENABLE ROW LEVEL SECURITY;

CREATE POLICY purged_tasks_owner ON purged_tasks
USING (user_id = current_setting('app.user_id', true));
ALTER TABLE purged_tasks ENABLE ROW LEVEL SECURITY;

-- migrate:down
SET LOCAL lock_timeout = '2s';

-- In the order in which writers lock them.
ALTER TABLE task_counters DISABLE ROW LEVEL SECURITY;
DROP POLICY task_counters_owner ON task_counters;
ALTER TABLE tasks DISABLE ROW LEVEL SECURITY;
DROP POLICY tasks_owner ON tasks;
ALTER TABLE purged_tasks DISABLE ROW LEVEL SECURITY;
DROP POLICY purged_tasks_owner ON purged_tasks;
