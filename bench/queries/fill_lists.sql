-- One user's tasks lie far apart among those of people with 20 each.
INSERT INTO tasks (
    user_id, title, description, completed, priority, due_at, tags, version
)
SELECT
    CASE number %% %(share)s::int
        WHEN 0 THEN 'heavy'
        ELSE 'user-' || number %% (%(tasks)s::int / 20)
    END,
    substr(md5(number::text), 1, 12) || ' task ' || number,
    'What is to be done about task ' || number || ': ' || md5(number::text),
    number / %(share)s::int %% 10 > 2,
    (enum_range(NULL::task_priority))[1 + number / %(share)s::int %% 4],
    CASE
        WHEN number %% 7 > 2
            THEN timestamptz '2026-01-01 00:00+00' + number %% 8760 * interval '1 hour'
    END,
    CASE number / %(share)s::int %% 20
        WHEN 0 THEN '{common,rare}' WHEN 1 THEN '{other}' WHEN 2 THEN '{}' ELSE '{common}'
    END::text[],
    number / %(share)s::int + 2
FROM generate_series(0, %(tasks)s::int - 1) AS number;
