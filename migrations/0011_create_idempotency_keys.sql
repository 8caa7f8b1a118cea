-- migrate:up
SET LOCAL lock_timeout = '2s';
SET LOCAL statement_timeout = '10s';

-- What a request with an Idempotency-Key was answered, written in the transaction of its writes.
CREATE TABLE idempotency_keys (
    user_id text NOT NULL,
    key text NOT NULL,
    fingerprint bytea NOT NULL,
    status bigint NOT NULL,
    headers jsonb NOT NULL,
    body text NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    CONSTRAINT idempotency_keys_pkey PRIMARY KEY (user_id, key),
    CONSTRAINT idempotency_keys_key_length CHECK (char_length(key) BETWEEN 1 AND 255)
);

CREATE INDEX idempotency_keys_expires_at ON idempotency_keys (expires_at);

CREATE POLICY idempotency_keys_owner ON idempotency_keys
USING (user_id = current_setting('app.user_id', true));
ALTER TABLE idempotency_keys ENABLE ROW LEVEL SECURITY;

-- migrate:down
SET LOCAL lock_timeout = '2s';

DROP TABLE idempotency_keys;
