-- fragment: is_listed
-- The filters that the index tasks_list can decide; null is none.
deleted_at IS NULL
            AND (%(completed)s::boolean IS NULL OR completed = %(completed)s)
            AND (%(priority)s::task_priority IS NULL OR priority = %(priority)s)
            AND (%(due_before)s::timestamptz IS NULL OR due_at < %(due_before)s)
            AND (%(due_after)s::timestamptz IS NULL OR due_at >= %(due_after)s)

-- fragment: key_of_created
-- By what lists are sorted, and then by id. No key is null, so that any two rows compare.
id

-- fragment: key_of_updated
version

-- fragment: key_of_title
lower(title)

-- fragment: key_of_due
coalesce(due_at, {never_<order>})

-- fragment: order_of_created
-- The key is the id. Named twice, it would be sorted once more by PostgreSQL 15.
id <order>

-- fragment: order_of_<sort:updated|title|due|priority>
key <order>, id <order>

-- fragment: never_asc
timestamptz 'infinity'

-- fragment: never_desc
timestamptz '-infinity'

-- fragment: key_of_priority
priority

-- fragment: beyond_asc
>

-- fragment: beyond_desc
<

-- fragment: start_asc
0

-- fragment: start_desc
9223372036854775807

-- fragment: after_id
-- Where a page begins, and the first one too: an index walk begins there. Row-level security lets a
-- CASE into the index, and keeps coalesce out as something that might leak.
CASE WHEN %(after_id)s::bigint IS NULL THEN {start_<order>} ELSE %(after_id)s END

-- fragment: after_version
CASE WHEN %(after_key)s::bigint IS NULL THEN {start_<order>} ELSE %(after_key)s END

-- fragment: is_beyond_created
-- Behind the last task of the page before, whose key and id are null on the first page.
id {beyond_<order>} {after_id}

-- fragment: is_beyond_updated
(version, id) {beyond_<order>} ({after_version}, {after_id})

-- fragment: is_beyond_title
(
                %(after_id)s::bigint IS NULL
                OR ({key_of_title}, id) {beyond_<order>} (%(after_key)s::text, %(after_id)s)
            )

-- fragment: is_beyond_due
(
                %(after_id)s::bigint IS NULL
                OR ({key_of_due}, id) {beyond_<order>} (%(after_key)s::timestamptz, %(after_id)s)
            )

-- fragment: is_beyond_priority
(
                %(after_id)s::bigint IS NULL
                OR (priority, id) {beyond_<order>} (%(after_key)s::task_priority, %(after_id)s)
            )

-- fragment: tags
ARRAY(SELECT jsonb_array_elements_text(%(tags)s))

-- fragment: may_have_tags
-- False only where a tag is missing for certain.
tag_bits & (SELECT bits_of_tags({tags})) = (SELECT bits_of_tags({tags}))

-- fragment: has_tags
-- Asked of each candidate for itself: as a join it could become one over all of the user's rows.
(SELECT tags @> {tags} FROM tasks WHERE user_id = %(user_id)s AND id = candidate.id)

-- fragment: is_found
-- Each of the LIKE patterns matches in title or description; without a word's white space between
-- the two, no word matches across them. In coalesce the planner takes half of all rows to match,
-- and so walks in the order asked for where an index has it, instead of sorting everything.
coalesce(
                {is_listed}
                AND tags @> {tags}
                AND lower(title || E'\n' || coalesce(description, ''))
                    LIKE ALL (ARRAY(SELECT lower(jsonb_array_elements_text(%(patterns)s)))),
                false
            )

-- fragment: page_of_tasks
-- Of `page`, which has one task more than asked for if there are more: the user's counter, the JSON
-- array, the key and id to go on after, null on the last page, and how many `counted` finds.
SELECT
    (SELECT version FROM task_counters WHERE user_id = %(user_id)s),
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
-- The plain list of one user, newest first, from below after_id: the user's counter, a JSON array
-- and, where there are more, what page_of_tasks says to go on after.
SELECT
    (SELECT version FROM task_counters WHERE user_id = %(user_id)s),
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
            AND id < CASE
                WHEN %(after_id)s::bigint IS NULL THEN {start_desc} ELSE %(after_id)s
            END
            AND deleted_at IS NULL
        ORDER BY id DESC
        LIMIT %(limit)s::bigint
    ) AS task
) AS page;

-- name: select_task_counter
-- What every write of the user's moves: the version of all that they have. No row before the first.
SELECT version FROM task_counters WHERE user_id = %(user_id)s;

-- name: select_tasks_by_<sort:created|updated|title|due|priority>_<order:asc|desc>
-- A page of one user's tasks that pass the filters. All that it decides by stands in tasks_list: no
-- more rows are fetched than shown. Returns what page_of_tasks says.
WITH page AS (
    SELECT id, key, row_number() OVER (ORDER BY key <order>, id <order>) AS place
    FROM (
        SELECT id, {key_of_<sort>} AS key
        FROM tasks
        WHERE user_id = %(user_id)s
            AND {is_listed}
            AND {is_beyond_<sort>}
        ORDER BY key <order>, id <order>
        LIMIT %(limit)s::bigint + 1
    ) AS first
),
counted AS (
    SELECT count(*) AS size
    FROM tasks
    WHERE user_id = %(user_id)s AND {is_listed}
)
{page_of_tasks};

-- name: select_tagged_tasks_by_<sort:created|updated|title|due|priority>_<order:asc|desc>
-- As above, of the tasks with all the tags. In the list's order, the rows that may have them are
-- looked at until the page is full.
WITH page AS (
    SELECT id, key, row_number() OVER (ORDER BY key <order>, id <order>) AS place
    FROM (
        SELECT id, key
        FROM (
            SELECT id, {key_of_<sort>} AS key
            FROM tasks
            WHERE user_id = %(user_id)s
                AND {is_listed}
                AND {is_beyond_<sort>}
                AND {may_have_tags}
            ORDER BY {order_of_<sort>}
        ) AS candidate
        WHERE {has_tags}
        ORDER BY {order_of_<sort>}
        LIMIT %(limit)s::bigint + 1
    ) AS first
),
counted AS (
    SELECT count(*) AS size
    FROM (
        SELECT id
        FROM tasks
        WHERE user_id = %(user_id)s
            AND {is_listed}
            AND {may_have_tags}
        ORDER BY id
    ) AS candidate
    WHERE {has_tags}
)
{page_of_tasks};

-- name: select_found_tasks_by_<sort:created|updated|title|due|priority>_<order:asc|desc>
-- As above, of the tasks with all the words and tags: each of the user's rows is read, sorted by
-- created until the page is full.
WITH page AS (
    SELECT id, key, row_number() OVER (ORDER BY key <order>, id <order>) AS place
    FROM (
        SELECT id, {key_of_<sort>} AS key
        FROM tasks
        WHERE user_id = %(user_id)s
            AND {is_beyond_<sort>}
            AND deleted_at IS NULL
            AND {is_found}
        ORDER BY key <order>, id <order>
        LIMIT %(limit)s::bigint + 1
    ) AS first
),
counted AS (
    SELECT count(*) AS size
    FROM tasks
    WHERE user_id = %(user_id)s AND deleted_at IS NULL AND {is_found}
)
{page_of_tasks};
