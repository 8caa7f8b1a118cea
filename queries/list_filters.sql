-- fragment: passes_filters
-- Null means no filter. The indexes hold all columns that these read.
(
    {has_no_filters}
    OR (
        (%(completed)s::boolean IS NULL OR completed = %(completed)s)
        AND (%(priority)s::task_priority IS NULL OR priority = %(priority)s)
        AND (%(due_before)s::timestamptz IS NULL OR due_at < %(due_before)s)
        AND (%(due_after)s::timestamptz IS NULL OR due_at >= %(due_after)s)
    )
)

-- fragment: has_no_filters
-- Evaluated once, not for each task.
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
-- Passes the filters, and has all the tags. The row is read only where the index's bits cannot rule
-- it out; a join could read all of the user's rows.
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
-- Passes the filters, and has all the tags and words.
deleted_at IS NULL
    AND coalesce({passes_filters} AND {has_tags} AND {has_words}, false)

-- fragment: has_tags
-- Where no tags are asked for, those of the tasks are not unpacked.
((SELECT {tags} = '{}') OR tags @> {tags})

-- fragment: has_words
-- Each word is in title or description: none holds white space, so none is found across the line
-- break between the two. The first, the longest, rules most tasks out. Not LIKE, whose time grows
-- with the length of the text times that of the word.
strpos({text_of_task}, (SELECT coalesce(replace(lower(%(words)s::jsonb ->> 0), 'ς', 'σ'), ''))) > 0
    AND (
        (SELECT jsonb_array_length(%(words)s) < 2)
        OR NOT EXISTS (
            SELECT FROM jsonb_array_elements_text(%(words)s::jsonb - 0) AS word
            WHERE strpos({text_of_task}, replace(lower(word), 'ς', 'σ')) = 0
        )
    )

-- fragment: text_of_task
-- A final sigma counts as a sigma, as lower() may make either.
CASE
    WHEN (SELECT %(words)s::jsonb::text ~ '[Σσς]')
    THEN replace({folded_text}, 'ς', 'σ')
    ELSE {folded_text}
END

-- fragment: folded_text
lower(title || E'\n' || coalesce(description, ''))
