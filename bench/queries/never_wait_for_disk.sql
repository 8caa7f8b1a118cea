-- For the sessions that begin after it. A pause at each commit would leave cold caches behind.
DO $$
BEGIN
    EXECUTE format('ALTER DATABASE %I SET synchronous_commit = off', current_database());
END
$$;
