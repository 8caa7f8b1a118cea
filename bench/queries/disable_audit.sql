ALTER TABLE tasks DISABLE TRIGGER tasks_audit_insert
