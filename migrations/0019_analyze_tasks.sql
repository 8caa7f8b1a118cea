-- migrate:up transaction:false
-- What 0018 tells the planner counts from here on.
-- squawk-ignore require-lock-timeout, require-statement-timeout
ANALYZE tasks;

-- migrate:down transaction:false
ANALYZE tasks;
