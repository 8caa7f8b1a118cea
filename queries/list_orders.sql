-- fragment: key_of_created
-- The fragments key_of_ are what lists are sorted by, and then by id. No key is null, so that any
-- two rows compare.
id

-- fragment: key_of_updated
version

-- fragment: key_of_title
lower(title)

-- fragment: key_of_priority
priority

-- fragment: key_of_due
coalesce(due_at, {never_<order>})

-- fragment: beyond_asc
>

-- fragment: beyond_desc
<

-- fragment: up_to_asc
<=

-- fragment: up_to_desc
>=

-- fragment: start_asc
-- Before the first id or version in this order.
0

-- fragment: start_desc
9223372036854775807

-- fragment: least_due
CASE WHEN %(due_after)s::timestamptz IS NULL THEN '-infinity' ELSE %(due_after)s END

-- fragment: greatest_due
CASE WHEN %(due_before)s::timestamptz IS NULL THEN 'infinity' ELSE %(due_before)s END

-- fragment: never_asc
-- The key of tasks without a due date, which come last in both directions.
timestamptz 'infinity'

-- fragment: never_desc
timestamptz '-infinity'

-- fragment: after_id_<order:asc|desc>
-- Where a page begins, even the first: an index walk begins there. With row-level security, a CASE
-- can be an index condition; coalesce cannot, as PostgreSQL does not take it for leakproof.
CASE WHEN %(after_id)s::bigint IS NULL THEN {start_<order>} ELSE %(after_id)s END

-- fragment: is_beyond_created
-- After the last task of the previous page, whose key and id are null on the first page.
id {beyond_<order>} {after_id_<order>}

-- fragment: is_beyond_updated
(version, id) {beyond_<order>} (
    CASE WHEN %(after_key)s::bigint IS NULL THEN {start_<order>} ELSE %(after_key)s END,
    {after_id_<order>}
)

-- fragment: is_beyond_title
(
    %(after_id)s::bigint IS NULL
    OR ({key_of_title}, id) {beyond_<order>} (%(after_key)s::text, %(after_id)s)
)

-- fragment: is_beyond_title_key
(
    %(after_id)s::bigint IS NULL
    OR (key, id) {beyond_<order>} (%(after_key)s::text, %(after_id)s)
)

-- fragment: is_beyond_priority
(
    %(after_id)s::bigint IS NULL
    OR (priority, id) {beyond_<order>} (%(after_key)s::task_priority, %(after_id)s)
)

-- fragment: is_beyond_due
(
    %(after_id)s::bigint IS NULL
    OR ({key_of_due}, id) {beyond_<order>} (%(after_key)s::timestamptz, %(after_id)s)
)

-- fragment: is_between_dues_asc
-- One bound on either side: a walk begins at one and ends at the other. With two on one side,
-- PostgreSQL may begin at the wrong one. Where a page begins is within the filters' bounds.
(due_at, id) > (
    CASE
        WHEN %(after_key)s::timestamptz IS NULL THEN {least_due} ELSE %(after_key)s
    END,
    CASE WHEN %(after_id)s::bigint IS NULL THEN 0 ELSE %(after_id)s END
)
    AND (due_at, id) < ({greatest_due}, 0)

-- fragment: is_between_dues_desc
(due_at, id) < (
    CASE
        WHEN %(after_key)s::timestamptz IS NULL THEN {greatest_due} ELSE %(after_key)s
    END,
    CASE WHEN %(after_id)s::bigint IS NULL THEN 0 ELSE %(after_id)s END
)
    AND (due_at, id) > ({least_due}, 0)
