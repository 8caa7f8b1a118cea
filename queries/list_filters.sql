-- fragment: passes_filters
-- Null means no filter. The indexes hold all columns that these read.
(
                {has_no_filters}
                OR (%(completed)s::boolean IS NULL OR completed = %(completed)s)
                AND (%(priority)s::task_priority IS NULL OR priority = %(priority)s)
                AND (%(due_before)s::timestamptz IS NULL OR due_at < %(due_before)s)
                AND (%(due_after)s::timestamptz IS NULL OR due_at >= %(due_after)s)
            )

-- fragment: has_no_filters
-- Found out once, not for each task.
(
                    SELECT num_nonnulls(
                        %(completed)s::boolean, %(priority)s::task_priority,
                        %(due_before)s::timestamptz, %(due_after)s::timestamptz
                    ) = 0
                )

-- fragment: passes_listed
-- With coalesce the planner expects half of all rows to match, and so walks in the order asked for.
-- Without, it expects next to none, and sorts what it finds in whichever index is smallest.
deleted_at IS NULL
            AND coalesce({passes_filters}, false)

-- fragment: passes_tagged
-- Also has all the tags. The row is read only where the index's bits cannot rule it out; a join
-- instead could read all of the user's rows.
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
-- Has all the tags and words.
deleted_at IS NULL
            AND coalesce({passes_filters} AND {has_tags} AND {has_words}, false)

-- fragment: has_tags
-- Where no tags are asked for, those of the tasks are not unpacked.
((SELECT {tags} = '{}') OR tags @> {tags})

-- fragment: has_words
-- Each LIKE pattern matches in title or description: no word holds white space, so none matches
-- across the line break between the two. A final sigma is a sigma, as lower() may make either.
CASE
                    WHEN (SELECT %(patterns)s::jsonb::text ~ '[Σσς]')
                    THEN replace({text_of_task}, 'ς', 'σ')
                    ELSE {text_of_task}
                END
                    LIKE ALL (
                        ARRAY(
                            SELECT replace(lower(pattern), 'ς', 'σ')
                            FROM jsonb_array_elements_text(%(patterns)s) AS pattern
                        )
                    )

-- fragment: text_of_task
lower(title || E'\n' || coalesce(description, ''))
