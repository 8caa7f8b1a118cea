-- fragment: sample
-- A few of the user's tasks. If a page of them passes, the page of all tasks reaches no further
-- than that one, and the search ends early: what is asked for is not rare.
(
    SELECT
        id, title, description, completed, priority, due_at, tags, deleted_at
    FROM tasks
    WHERE user_id = %(user_id)s
    ORDER BY id <order>
    LIMIT 200
) AS tasks

-- fragment: sample_of_titles
-- More of them, as this reads the index alone.
(
    SELECT id, {key_of_title} AS key, completed, priority, due_at, tag_bits
    FROM tasks
    WHERE user_id = %(user_id)s AND deleted_at IS NULL
    ORDER BY due_at, id
    LIMIT 500
) AS tasks

-- fragment: first_tagged_by_title
-- Sorted from the index alone, as far as the page can reach, then checked until enough have the
-- tags.
WITH reach AS MATERIALIZED (
    SELECT key
    FROM (
        SELECT id, key
        FROM {sample_of_titles}
        WHERE coalesce({passes_filters} AND {may_have_tags} AND {is_beyond_title_key}, false)
        ORDER BY key <order>
    ) AS candidate
    WHERE {candidate_has_tags}
    ORDER BY key <order>
    OFFSET %(limit)s::bigint
    LIMIT 1
)
SELECT id, key
FROM (
    SELECT id, {key_of_title} AS key
    FROM tasks
    WHERE user_id = %(user_id)s
        AND deleted_at IS NULL
        AND coalesce(
            {passes_filters}
            AND {may_have_tags}
            AND {is_beyond_title}
            AND coalesce({key_of_title} {up_to_<order>} (SELECT key FROM reach), true),
            false
        )
    ORDER BY key <order>, id <order>
) AS candidate
WHERE {candidate_has_tags}
ORDER BY key <order>, id <order>
LIMIT %(limit)s::bigint + 1

-- fragment: candidate_has_tags
(SELECT tags @> {tags} FROM tasks WHERE user_id = %(user_id)s AND id = candidate.id)

-- fragment: first_tagged_by_priority
-- If few may have the tags, those are sorted and checked: walks would not end early, but read all
-- of the user's index entries four times. `few` has no order: a thousand are only counted.
WITH few AS MATERIALIZED (
    SELECT id, priority AS key
    FROM tasks
    WHERE user_id = %(user_id)s
        AND {is_beyond_priority}
        AND {passes_listed}
        AND {may_have_tags}
    LIMIT 1000
)
(
    SELECT id, key
    FROM (
        SELECT id, key
        FROM few
        WHERE (SELECT count(*) FROM few) < 1000
        ORDER BY key <order>, id <order>
    ) AS candidate
    WHERE {candidate_has_tags}
    ORDER BY key <order>, id <order>
    LIMIT %(limit)s::bigint + 1
)
UNION ALL
SELECT id, key
FROM (
    {walk_tagged_by_priority}
) AS walk
WHERE (SELECT count(*) FROM few) = 1000

-- fragment: first_found_by_<sort:title|priority>
-- If the words are common, as first_tagged_by_title. Otherwise a sort of all that match, which are
-- read in the order of ids: with the limit, the planner takes no bitmap for that, which is slower.
WITH reach AS MATERIALIZED (
    SELECT {key_of_<sort>} AS key
    FROM {sample}
    WHERE {is_beyond_<sort>} AND {passes_found}
    ORDER BY key <order>
    OFFSET %(limit)s::bigint
    LIMIT 1
)
(
    SELECT id, key
    FROM (
        SELECT id, {key_of_<sort>} AS key
        FROM tasks
        WHERE user_id = %(user_id)s
            AND EXISTS (SELECT FROM reach)
            AND deleted_at IS NULL
            AND coalesce(
                {passes_filters}
                AND {is_beyond_<sort>}
                AND {key_of_<sort>} {up_to_<order>} (SELECT key FROM reach),
                false
            )
        ORDER BY key <order>, id <order>
    ) AS candidate
    WHERE (
        SELECT {has_tags} AND {has_words}
        FROM tasks
        WHERE user_id = %(user_id)s AND id = candidate.id
    )
    ORDER BY key <order>, id <order>
    LIMIT %(limit)s::bigint + 1
)
UNION ALL
(
    SELECT id, key
    FROM (
        SELECT id, {key_of_<sort>} AS key
        FROM tasks
        WHERE user_id = %(user_id)s AND {is_beyond_<sort>} AND {passes_found}
        ORDER BY id <order>
        LIMIT CASE WHEN EXISTS (SELECT FROM reach) THEN 0 END
    ) AS found
    ORDER BY key <order>, id <order>
    LIMIT %(limit)s::bigint + 1
)

-- fragment: first_found_by_due
-- If the words are common, a walk. Otherwise a sort of all that match, as by title.
WITH common AS MATERIALIZED (
    SELECT FROM {sample}
    WHERE {is_beyond_due} AND {passes_found}
    OFFSET %(limit)s::bigint
    LIMIT 1
)
(
    SELECT id, key
    FROM (
        {walk_found_by_due}
    ) AS walk
    WHERE EXISTS (SELECT FROM common)
)
UNION ALL
(
    SELECT id, key
    FROM (
        SELECT id, {key_of_due} AS key
        FROM tasks
        WHERE user_id = %(user_id)s AND {is_beyond_due} AND {passes_found}
        ORDER BY id <order>
        LIMIT CASE WHEN EXISTS (SELECT FROM common) THEN 0 END
    ) AS found
    ORDER BY key <order>, id <order>
    LIMIT %(limit)s::bigint + 1
)
