-- migrate:up
SET LOCAL lock_timeout = '2s';
SET LOCAL statement_timeout = '1h';

-- Tell the planner that each user has a thousand tasks, from ANALYZE on. With the true average,
-- often a few, it would read all tasks of a user with 100,000 to find a hundred.
ALTER TABLE tasks ALTER COLUMN user_id SET (n_distinct = -0.001);
ANALYZE tasks;

-- migrate:down
SET LOCAL lock_timeout = '2s';
SET LOCAL statement_timeout = '1h';

ALTER TABLE tasks ALTER COLUMN user_id RESET (n_distinct);
ANALYZE tasks;
