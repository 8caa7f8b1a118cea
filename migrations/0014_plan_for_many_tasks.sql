-- migrate:up
SET LOCAL lock_timeout = '2s';
SET LOCAL statement_timeout = '1h';

-- The planner takes each user to have a thousand tasks. By the average of a few it would read all of
-- a user's tasks to find a hundred, whoever has 100,000. What it is told counts from ANALYZE on.
ALTER TABLE tasks ALTER COLUMN user_id SET (n_distinct = -0.001);
ANALYZE tasks;

-- migrate:down
SET LOCAL lock_timeout = '2s';
SET LOCAL statement_timeout = '1h';

ALTER TABLE tasks ALTER COLUMN user_id RESET (n_distinct);
ANALYZE tasks;
