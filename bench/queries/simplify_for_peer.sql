DROP TRIGGER tasks_count_insert ON tasks;
DROP TRIGGER tasks_count_update ON tasks;
DROP TRIGGER tasks_count_delete ON tasks;
DROP TRIGGER tasks_audit_insert ON tasks;
DROP TRIGGER tasks_audit_update ON tasks;
DROP TRIGGER tasks_audit_delete ON tasks;
DROP TRIGGER tasks_tag_bits_insert ON tasks;
DROP TRIGGER tasks_tag_bits_update ON tasks;
DROP INDEX tasks_updated;
DROP INDEX tasks_due_title;
ALTER TABLE tasks
DROP CONSTRAINT tasks_due_at_range,
DROP CONSTRAINT tasks_tags_count,
DROP CONSTRAINT tasks_tags_length,
DROP CONSTRAINT tasks_pkey,
ADD CONSTRAINT tasks_pkey PRIMARY KEY (user_id, id);
