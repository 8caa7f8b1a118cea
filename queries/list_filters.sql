-- fragment: passes_filters
-- Null is no filter. The indexes hold all that these read.
(%(completed)s::boolean IS NULL OR completed = %(completed)s)
            AND (%(priority)s::task_priority IS NULL OR priority = %(priority)s)
            AND (%(due_before)s::timestamptz IS NULL OR due_at < %(due_before)s)
            AND (%(due_after)s::timestamptz IS NULL OR due_at >= %(due_after)s)

-- fragment: passes_listed
-- In coalesce the planner takes half of all rows to match, and so walks in the order asked for.
-- Else it expects next to none, and sorts what it finds in whichever index is smallest.
deleted_at IS NULL
            AND coalesce({passes_filters}, false)

-- fragment: passes_tagged
-- Has all the tags, too. The row is asked where the index's bits do not tell; as a join, that could
-- become one over all of the user's rows.
deleted_at IS NULL
            AND coalesce(
                {passes_filters}
                AND {may_have_tags}
                AND (
                    SELECT same.tags @> {tags}
                    FROM tasks AS same
                    WHERE same.user_id = %(user_id)s AND same.id = tasks.id
                ),
                false
            )

-- fragment: may_have_tags
-- False only where a tag is missing for certain.
tag_bits & (SELECT bits_of_tags({tags})) = (SELECT bits_of_tags({tags}))

-- fragment: tags
ARRAY(SELECT jsonb_array_elements_text(%(tags)s))

-- fragment: passes_found
-- Has all the tags and words. Each of the LIKE patterns matches in title or description; without a
-- word's white space between the two, no word matches across them.
deleted_at IS NULL
            AND coalesce(
                {passes_filters}
                AND tags @> {tags}
                AND lower(title || E'\n' || coalesce(description, ''))
                    LIKE ALL (ARRAY(SELECT lower(jsonb_array_elements_text(%(patterns)s)))),
                false
            )
