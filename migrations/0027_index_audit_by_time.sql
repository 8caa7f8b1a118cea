-- migrate:up transaction:false
-- In place of the BRIN index of 0011, whose ranges only ever widen: once vacuum had freed the pages
-- of expired entries, and newer ones had filled them, each purge read the whole table.
-- Fails where a broken run has left an INVALID index: DROP INDEX CONCURRENTLY audit_log_time; first.
-- squawk-ignore require-lock-timeout, require-statement-timeout, prefer-robust-stmts
CREATE INDEX CONCURRENTLY audit_log_time ON audit_log (at);

-- migrate:down transaction:false
DROP INDEX CONCURRENTLY IF EXISTS audit_log_time;
