-- name: insert_audit_entries
-- What the triggers of the tables do not see: refused tokens, limits hit, exports.
INSERT INTO audit_log (at, user_id, action, detail, address, request_id)
SELECT given.at, given.user_id, given.action, given.detail, given.address, given.request_id
FROM jsonb_to_recordset(%(entries)s) AS given (
    at timestamptz, user_id text, action text, detail text, address text, request_id text
);

-- name: delete_audit_entries
-- Of the max_rows oldest entries, not from before `after`, deletes those that are older than some
-- days; returns how many, and when the last of them is from. They are taken in the index's order
-- before their age is compared: otherwise the planner, which does not know max_rows, may read and
-- sort all that are too old for each statement. Between two bounds it expects few, without `now()`
-- a third of the table, which it may sort as well. Their age is compared again: where somebody has
-- split the table into partitions, each of these has the same ctids.
WITH deleted AS (
    DELETE FROM audit_log
    WHERE ctid = ANY (
        ARRAY(
            SELECT row_id
            FROM (
                SELECT at, ctid AS row_id
                FROM audit_log
                WHERE at BETWEEN %(after)s::timestamptz AND now()
                ORDER BY at
                LIMIT %(max_rows)s
            ) AS oldest
            WHERE at < now() - make_interval(days => %(days)s)
        )
    )
        AND at < now() - make_interval(days => %(days)s)
    RETURNING at
)
SELECT count(*), max(at) FROM deleted;
