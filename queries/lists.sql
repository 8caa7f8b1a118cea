-- fragment: first_<kind:listed|tagged|found>_by_<sort:created|updated>
-- A walk in the index of that order, until the page is full.
SELECT id, {key_of_<sort>} AS key
FROM tasks
WHERE user_id = %(user_id)s AND {is_beyond_<sort>} AND {passes_<kind>}
ORDER BY key <order>, id <order>
LIMIT %(limit)s::bigint + 1

-- fragment: first_listed_by_priority
{walk_listed_by_priority}

-- fragment: walk_<kind:listed|tagged>_by_priority
-- A walk by id for each priority, until the page is full.
SELECT id, key
FROM
    (SELECT key FROM unnest(enum_range(NULL::task_priority)) AS key ORDER BY key <order>)
        AS level,
    LATERAL (
        SELECT id
        FROM tasks
        WHERE user_id = %(user_id)s AND priority = key
            AND (%(priority)s::task_priority IS NULL OR key = %(priority)s)
            AND (
                %(after_key)s::task_priority IS NULL
                OR %(after_key)s {up_to_<order>} key
            )
            AND id {beyond_<order>} CASE
                WHEN key = %(after_key)s::task_priority THEN %(after_id)s::bigint
                ELSE {start_<order>}
            END
            AND {passes_<kind>}
        ORDER BY id <order>
        LIMIT %(limit)s::bigint + 1
    ) AS task
ORDER BY key <order>, id <order>
LIMIT %(limit)s::bigint + 1

-- fragment: first_<kind:listed|tagged>_by_due
{walk_<kind>_by_due}

-- fragment: walk_<kind:listed|tagged|found>_by_due
-- A walk among the tasks with a due date, and one among those without, for the room that is left.
WITH dated AS (
    SELECT id, due_at AS key
    FROM tasks
    WHERE user_id = %(user_id)s
        AND {is_between_dues_<order>}
        AND {passes_<kind>}
    ORDER BY due_at <order>, id <order>
    LIMIT %(limit)s::bigint + 1
),
undated AS (
    SELECT id, {never_<order>} AS key
    FROM tasks
    WHERE user_id = %(user_id)s AND due_at IS NULL
        AND %(due_after)s::timestamptz IS NULL AND %(due_before)s::timestamptz IS NULL
        AND id {beyond_<order>} CASE
            WHEN %(after_key)s::timestamptz = {never_<order>} THEN %(after_id)s::bigint
            ELSE {start_<order>}
        END
        AND {passes_<kind>}
    ORDER BY due_at <order>, id <order>
    LIMIT %(limit)s::bigint + 1 - (SELECT count(*) FROM dated)
)
SELECT id, key FROM dated
UNION ALL
SELECT id, key FROM undated

-- fragment: page_of_tasks
-- From `page`, which has one task more than asked for if there are more: the user's version, the
-- JSON array, the key and id to go on after (null on the last page), and the size of `counted`.
SELECT
    {newest_version},
    coalesce(
        json_agg(
            (
                SELECT row_to_json(task)
                FROM (
                    SELECT {task_fields}
                    FROM tasks
                    WHERE user_id = %(user_id)s AND id = page.id
                ) AS task
            )
            ORDER BY place
        ) FILTER (WHERE place <= %(limit)s),
        '[]'
    ),
    CASE
        WHEN count(*) > %(limit)s
            THEN json_agg(json_build_array(key, id)) FILTER (WHERE place = %(limit)s) -> 0
    END,
    CASE WHEN %(count)s::boolean THEN (SELECT size FROM counted) END
FROM page

-- name: select_tasks
-- The plain list of one user, newest first, from below after_id: the user's version, a JSON array
-- and, where there are more, the key and id to go on after, as in page_of_tasks. The array has the
-- order of the subquery, which an aggregate keeps (documentation, 9.21).
SELECT
    {newest_version},
    coalesce(tasks, '[]'),
    CASE
        WHEN size = %(limit)s::bigint AND EXISTS (
            SELECT FROM tasks
            WHERE user_id = %(user_id)s AND id < last_id AND deleted_at IS NULL
        ) THEN json_build_array(last_id, last_id)
    END
FROM (
    SELECT json_agg(task) AS tasks, count(*) AS size, min(id) AS last_id
    FROM (
        SELECT {task_fields}
        FROM tasks
        WHERE user_id = %(user_id)s
            AND id < {after_id_desc}
            AND deleted_at IS NULL
        ORDER BY id DESC
        LIMIT %(limit)s::bigint
    ) AS task
) AS page;

-- fragment: list_of_tasks
WITH page AS (
    SELECT id, key, row_number() OVER (ORDER BY key <order>, id <order>) AS place
    FROM (
        {first_<kind>_by_<sort>}
    ) AS first
),
counted AS (
    SELECT count(*) AS size
    FROM tasks
    WHERE user_id = %(user_id)s AND {passes_<kind>}
)
{page_of_tasks}

-- name: select_<kind:listed>_tasks_by_<sort:created|updated|due|priority>_<order:asc|desc>
-- A page of one user's tasks that pass the filters. The indexes hold all that decides: no more rows
-- are fetched than shown. Returns what page_of_tasks does.
{list_of_tasks};

-- name: select_<kind:tagged>_tasks_by_<sort:created|updated|title|due|priority>_<order:asc|desc>
-- As above, for tasks with all the tags. Rows that may have them are read until the page is full.
{list_of_tasks};

-- name: select_<kind:found>_tasks_by_<sort:created|updated|title|due|priority>_<order:asc|desc>
-- As above, for tasks with all the words and tags. Rows are read until the page is full; by title,
-- priority and due date, all of the user's are read where the words are not common.
{list_of_tasks};

-- name: select_<kind:listed>_tasks_by_<sort:title>_<order:asc|desc>
-- As the other lists without tags and words, but all of the user's index entries are read, and only
-- once if they are counted, too. Those that the page can reach, as a sample tells, are sorted.
WITH reach AS MATERIALIZED (
    SELECT key
    FROM {sample_of_titles}
    WHERE {is_beyond_title_key} AND {passes_filters}
    ORDER BY key <order>
    OFFSET %(limit)s::bigint
    LIMIT 1
),
passing AS MATERIALIZED (
    SELECT id, {key_of_title} AS key
    FROM tasks
    WHERE user_id = %(user_id)s AND %(count)s::boolean AND {passes_listed}
),
page AS (
    SELECT id, key, row_number() OVER (ORDER BY key <order>, id <order>) AS place
    FROM (
        SELECT id, key
        FROM passing
        WHERE {is_beyond_title_key}
        UNION ALL
        SELECT id, {key_of_title}
        FROM tasks
        WHERE user_id = %(user_id)s
            AND NOT %(count)s
            AND {is_beyond_title}
            AND {passes_listed}
            AND coalesce({key_of_title} {up_to_<order>} (SELECT key FROM reach), true)
        ORDER BY key <order>, id <order>
        LIMIT %(limit)s::bigint + 1
    ) AS first
),
counted AS (
    SELECT count(*) AS size FROM passing
)
{page_of_tasks};
