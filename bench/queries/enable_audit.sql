ALTER TABLE tasks ENABLE TRIGGER tasks_audit_insert
