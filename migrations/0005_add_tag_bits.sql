-- migrate:up
SET LOCAL lock_timeout = '2s';
SET LOCAL statement_timeout = '10s';

-- Two bits of 64 for each tag (a Bloom filter): an index can hold these, tags may be too long.
CREATE FUNCTION bits_of_tags(tags text[]) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (
    SELECT coalesce(bit_or((1::bigint << (hash & 63)) | (1::bigint << (hash >> 6 & 63))), 0)
    FROM (SELECT hashtext(tag) AS hash FROM unnest(tags) AS tag) AS hashes
);

-- Existing rows get all bits, so that each of them is checked for its tags.
ALTER TABLE tasks ADD COLUMN IF NOT EXISTS tag_bits bigint NOT NULL DEFAULT '-1';
ALTER TABLE tasks ALTER COLUMN tag_bits SET DEFAULT 0;

CREATE FUNCTION set_tag_bits() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.tag_bits := bits_of_tags(NEW.tags);
    RETURN NEW;
END $$;

CREATE TRIGGER tasks_tag_bits_insert BEFORE INSERT ON tasks
FOR EACH ROW WHEN (NEW.tags <> '{}') EXECUTE FUNCTION set_tag_bits();
CREATE TRIGGER tasks_tag_bits_update BEFORE UPDATE ON tasks
FOR EACH ROW WHEN (NEW.tags <> OLD.tags OR OLD.tag_bits = -1) EXECUTE FUNCTION set_tag_bits();

-- migrate:down
SET LOCAL lock_timeout = '2s';

DROP TRIGGER tasks_tag_bits_update ON tasks;
DROP TRIGGER tasks_tag_bits_insert ON tasks;
DROP FUNCTION set_tag_bits();
ALTER TABLE tasks DROP COLUMN tag_bits;
DROP FUNCTION bits_of_tags(text[]);
