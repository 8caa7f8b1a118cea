-- The rows of this user are seen; plans are those of a connection that has run statements often.
SELECT
    set_config('app.user_id', %(user_id)s, false),
    set_config('plan_cache_mode', 'force_generic_plan', false);
