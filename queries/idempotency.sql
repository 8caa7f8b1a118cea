-- name: try_idempotency_key
-- Claims a user's key until the transaction ends; false where another transaction has it.
SELECT pg_try_advisory_xact_lock(hashtext(%(user_id)s), hashtext(%(key)s));

-- name: select_idempotent_response
-- What is kept under a key: whether for the same request, and its response. In a statement after
-- the claim, whose snapshot has what the last holder of the key committed. The row's lock is a
-- write: its COMMIT waits until a synchronous standby has that, and so what the holder committed.
SELECT fingerprint = %(fingerprint)s, status, headers, body
FROM idempotency_keys
WHERE user_id = %(user_id)s AND key = %(key)s AND expires_at > now()
FOR KEY SHARE;

-- name: insert_idempotent_response
-- Keeps a response for 24 hours, in place of an expired one. Fails where there is one that has not
-- expired, by a NULL in a column that has none: it is never replaced.
INSERT INTO idempotency_keys AS kept (
    user_id, key, fingerprint, status, headers, body, created_at, expires_at
)
VALUES (
    %(user_id)s, %(key)s, %(fingerprint)s, %(status)s, %(headers)s, %(body)s,
    now(), now() + interval '24 hours'
)
ON CONFLICT (user_id, key) DO UPDATE
    SET fingerprint = CASE WHEN kept.expires_at <= now() THEN excluded.fingerprint END,
        status = excluded.status, headers = excluded.headers, body = excluded.body,
        created_at = excluded.created_at, expires_at = excluded.expires_at;

-- name: commit
-- Ends the transaction, in the round trip of its last statement; not run where that fails.
COMMIT;

-- name: delete_expired_idempotency_keys
-- Takes the max_rows keys, of any user, that expire first, not before `after`, and deletes those of
-- them that have expired; returns how many, and when the last of them did. One that is used again
-- meanwhile stays. They are taken in the index's order before their time is compared, as in
-- delete_audit_entries.
WITH deleted AS (
    DELETE FROM idempotency_keys
    WHERE ctid = ANY (
        ARRAY(
            SELECT row_id
            FROM (
                SELECT expires_at, ctid AS row_id
                FROM idempotency_keys
                WHERE expires_at >= %(after)s::timestamptz
                ORDER BY expires_at
                LIMIT %(max_rows)s
            ) AS oldest
            WHERE expires_at <= now()
        )
    )
        AND expires_at <= now()
    RETURNING expires_at
)
SELECT count(*), max(expires_at) FROM deleted;
