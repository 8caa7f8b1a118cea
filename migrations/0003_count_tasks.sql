-- migrate:up transaction:false
-- One transaction a user: who writes meanwhile waits for no more than their own row.
DO $$
DECLARE
    owner text;
BEGIN
    PERFORM set_config('synchronous_commit', 'off', false);
    FOR owner IN SELECT DISTINCT user_id FROM tasks LOOP
        INSERT INTO task_counters (user_id, version, stored)
        SELECT owner, 1, count(*) FROM tasks WHERE user_id = owner
        ON CONFLICT (user_id) DO NOTHING;
        COMMIT;
    END LOOP;
END $$;

-- migrate:down transaction:false
-- The counters stay until 0002 is undone, so that no version is given out twice.
SELECT 1;
