-- name: insert_audit_entries
-- What the triggers of the tables do not see: refused tokens, limits hit, exports.
INSERT INTO audit_log (at, user_id, action, detail, address, request_id)
SELECT given.at, given.user_id, given.action, given.detail, given.address, given.request_id
FROM jsonb_to_recordset(%(entries)s) AS given (
    at timestamptz, user_id text, action text, detail text, address text, request_id text
);

-- name: delete_audit_entries
-- Deletes up to max_rows entries that are older than some days, the oldest first, and returns how
-- many. The order is the index's, so that no more entries are read than deleted.
WITH deleted AS (
    DELETE FROM audit_log
    WHERE ctid = ANY (
        ARRAY(
            SELECT ctid
            FROM audit_log
            WHERE at < now() - make_interval(days => %(days)s)
            ORDER BY at, ctid
            LIMIT %(max_rows)s
        )
    )
    RETURNING at
)
SELECT count(*) FROM deleted;
