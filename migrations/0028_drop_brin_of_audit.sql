-- migrate:up transaction:false
-- squawk-ignore require-lock-timeout, require-statement-timeout
DROP INDEX CONCURRENTLY IF EXISTS audit_log_at;

-- migrate:down transaction:false
-- squawk-ignore require-lock-timeout, require-statement-timeout, prefer-robust-stmts
CREATE INDEX CONCURRENTLY audit_log_at ON audit_log USING brin (at);
