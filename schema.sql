\restrict dbmate

-- Dumped from database version 18.4
-- Dumped by pg_dump version 18.4

SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET transaction_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;

--
-- Name: task_priority; Type: TYPE; Schema: public; Owner: -
--

CREATE TYPE public.task_priority AS ENUM (
    'none',
    'low',
    'medium',
    'high'
);


--
-- Name: audit_tasks(); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.audit_tasks() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    IF TG_OP = 'UPDATE' THEN
        PERFORM FROM after OFFSET 1;
        IF FOUND THEN
            INSERT INTO audit_log (user_id, action, task_ids)
            SELECT changed.user_id, changed.action, array_agg(changed.id ORDER BY changed.id)
            FROM (
                SELECT
                    after.user_id, after.id,
                    CASE
                        WHEN (before.deleted_at IS NULL) = (after.deleted_at IS NULL) THEN 'update'
                        WHEN after.deleted_at IS NULL THEN 'restore'
                        ELSE 'delete'
                    END AS action
                FROM before
                INNER JOIN after ON after.user_id = before.user_id AND after.id = before.id
            ) AS changed
            GROUP BY changed.user_id, changed.action;
        ELSE
            INSERT INTO audit_log (user_id, action, task_ids)
            SELECT
                after.user_id,
                CASE
                    WHEN (before.deleted_at IS NULL) = (after.deleted_at IS NULL) THEN 'update'
                    WHEN after.deleted_at IS NULL THEN 'restore'
                    ELSE 'delete'
                END,
                ARRAY[after.id]
            FROM before, after;
        END IF;
    ELSE
        PERFORM FROM changed OFFSET 1;
        IF FOUND THEN
            INSERT INTO audit_log (user_id, action, task_ids)
            SELECT
                changed.user_id, CASE TG_OP WHEN 'INSERT' THEN 'create' ELSE 'purge' END,
                array_agg(changed.id ORDER BY changed.id)
            FROM changed
            GROUP BY changed.user_id;
        ELSE
            INSERT INTO audit_log (user_id, action, task_ids)
            SELECT
                changed.user_id, CASE TG_OP WHEN 'INSERT' THEN 'create' ELSE 'purge' END,
                ARRAY[changed.id]
            FROM changed;
        END IF;
    END IF;
    RETURN NULL;
END $$;


--
-- Name: bits_of_tags(text[]); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.bits_of_tags(tags text[]) RETURNS bigint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (SELECT COALESCE(bit_or((((1)::bigint << (hashes.hash & 63)) | ((1)::bigint << ((hashes.hash >> 6) & 63)))), (0)::bigint) AS "coalesce" FROM (SELECT hashtext(tag.tag) AS hash FROM unnest(bits_of_tags.tags) tag(tag)) hashes);


--
-- Name: count_task_change(); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.count_task_change() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
DECLARE
    owner text := CASE TG_OP WHEN 'DELETE' THEN OLD.user_id ELSE NEW.user_id END;
    more bigint := CASE TG_OP WHEN 'INSERT' THEN 1 WHEN 'DELETE' THEN -1 ELSE 0 END;
    new_version bigint;
BEGIN
    UPDATE task_counters SET version = version + 1, stored = stored + more
    WHERE user_id = owner
    RETURNING version INTO new_version;
    IF new_version IS NULL THEN
        INSERT INTO task_counters AS counter (user_id, version, stored)
        SELECT owner, 2, count(*) + greatest(more, 0) FROM tasks WHERE user_id = owner
        ON CONFLICT (user_id) DO UPDATE
            SET version = counter.version + 1, stored = counter.stored + more
        RETURNING version INTO new_version;
    END IF;
    IF TG_OP = 'DELETE' THEN
        INSERT INTO purged_tasks (user_id, version, id) VALUES (owner, new_version, OLD.id);
        RETURN NULL;
    END IF;
    NEW.version := new_version;
    -- The release before this reopens tasks without knowing of it.
    IF NOT NEW.completed THEN
        NEW.completed_at := NULL;
    END IF;
    RETURN NEW;
END $$;


--
-- Name: keep_task_owner(); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.keep_task_owner() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    RAISE EXCEPTION 'a task keeps its user_id: export the tasks, and import them as the other user'
        USING ERRCODE = 'integrity_constraint_violation';
END $$;


--
-- Name: set_tag_bits(); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.set_tag_bits() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    NEW.tag_bits := bits_of_tags(NEW.tags);
    RETURN NEW;
END $$;


SET default_tablespace = '';

SET default_table_access_method = heap;

--
-- Name: audit_log; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.audit_log (
    at timestamp with time zone DEFAULT now() NOT NULL,
    user_id text NOT NULL,
    action text NOT NULL,
    task_ids bigint[] DEFAULT '{}'::bigint[] NOT NULL,
    detail text DEFAULT ''::text NOT NULL,
    address text DEFAULT ''::text NOT NULL,
    request_id text DEFAULT COALESCE(current_setting('app.request_id'::text, true), ''::text) NOT NULL,
    role name DEFAULT CURRENT_USER NOT NULL
);


--
-- Name: idempotency_keys; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.idempotency_keys (
    user_id text NOT NULL,
    key text NOT NULL,
    fingerprint bytea NOT NULL,
    status bigint NOT NULL,
    headers jsonb NOT NULL,
    body text NOT NULL,
    created_at timestamp with time zone NOT NULL,
    expires_at timestamp with time zone NOT NULL,
    CONSTRAINT idempotency_keys_key_length CHECK (((char_length(key) >= 1) AND (char_length(key) <= 255)))
);


--
-- Name: purged_tasks; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.purged_tasks (
    user_id text NOT NULL,
    version bigint NOT NULL,
    id bigint NOT NULL,
    purged_at timestamp with time zone DEFAULT now() NOT NULL
);


--
-- Name: schema_migrations; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.schema_migrations (
    version character varying NOT NULL
);


--
-- Name: task_counters; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.task_counters (
    user_id text NOT NULL,
    version bigint NOT NULL,
    stored bigint NOT NULL
)
WITH (fillfactor='50');


--
-- Name: tasks; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.tasks (
    user_id text NOT NULL,
    id bigint NOT NULL,
    title text NOT NULL,
    description text,
    completed boolean DEFAULT false NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    priority public.task_priority DEFAULT 'none'::public.task_priority NOT NULL,
    due_at timestamp with time zone,
    due_all_day boolean DEFAULT false NOT NULL,
    tags text[] DEFAULT '{}'::text[] NOT NULL,
    completed_at timestamp with time zone,
    deleted_at timestamp with time zone,
    version bigint DEFAULT 1 NOT NULL,
    tag_bits bigint DEFAULT 0 NOT NULL,
    CONSTRAINT tasks_description_length CHECK ((char_length(description) <= 5000)),
    CONSTRAINT tasks_due_at_range CHECK (((due_at >= '1970-01-01 00:00:00+00'::timestamp with time zone) AND (due_at < '2201-01-01 00:00:00+00'::timestamp with time zone))),
    CONSTRAINT tasks_tags_count CHECK ((cardinality(tags) <= 20)),
    CONSTRAINT tasks_tags_length CHECK (((array_position(tags, ''::text) IS NULL) AND (array_position(tags, NULL::text) IS NULL) AND (char_length(array_to_string(tags, ''::text)) <= 1000))),
    CONSTRAINT tasks_title_length CHECK (((char_length(title) >= 1) AND (char_length(title) <= 200))),
    CONSTRAINT tasks_title_not_blank CHECK ((title ~ '[^[:space:]]'::text)),
    CONSTRAINT tasks_user_id_length CHECK (((char_length(user_id) >= 1) AND (char_length(user_id) <= 255)))
);
ALTER TABLE ONLY public.tasks ALTER COLUMN user_id SET (n_distinct=-0.001);


--
-- Name: tasks_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

ALTER TABLE public.tasks ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.tasks_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);


--
-- Name: idempotency_keys idempotency_keys_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.idempotency_keys
    ADD CONSTRAINT idempotency_keys_pkey PRIMARY KEY (user_id, key);


--
-- Name: purged_tasks purged_tasks_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.purged_tasks
    ADD CONSTRAINT purged_tasks_pkey PRIMARY KEY (user_id, version, id);


--
-- Name: schema_migrations schema_migrations_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.schema_migrations
    ADD CONSTRAINT schema_migrations_pkey PRIMARY KEY (version);


--
-- Name: task_counters task_counters_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.task_counters
    ADD CONSTRAINT task_counters_pkey PRIMARY KEY (user_id);


--
-- Name: tasks tasks_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.tasks
    ADD CONSTRAINT tasks_pkey PRIMARY KEY (user_id, id) INCLUDE (completed, priority, due_at, tag_bits, version, deleted_at);


--
-- Name: audit_log_time; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX audit_log_time ON public.audit_log USING btree (at);


--
-- Name: idempotency_keys_expires_at; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idempotency_keys_expires_at ON public.idempotency_keys USING btree (expires_at);


--
-- Name: tasks_due_title; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX tasks_due_title ON public.tasks USING btree (user_id, due_at, id, lower(title)) INCLUDE (completed, priority, tag_bits, title) WHERE (deleted_at IS NULL);


--
-- Name: tasks_trash; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX tasks_trash ON public.tasks USING btree (user_id, version, id) INCLUDE (deleted_at) WHERE (deleted_at IS NOT NULL);


--
-- Name: tasks_updated; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX tasks_updated ON public.tasks USING btree (user_id, version, id) INCLUDE (completed, priority, due_at, tag_bits, deleted_at);


--
-- Name: tasks tasks_audit_delete; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER tasks_audit_delete AFTER DELETE ON public.tasks REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION public.audit_tasks();


--
-- Name: tasks tasks_audit_insert; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER tasks_audit_insert AFTER INSERT ON public.tasks REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION public.audit_tasks();


--
-- Name: tasks tasks_audit_update; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER tasks_audit_update AFTER UPDATE ON public.tasks REFERENCING OLD TABLE AS before NEW TABLE AS after FOR EACH STATEMENT EXECUTE FUNCTION public.audit_tasks();


--
-- Name: tasks tasks_count_delete; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER tasks_count_delete AFTER DELETE ON public.tasks FOR EACH ROW WHEN ((old.deleted_at IS NULL)) EXECUTE FUNCTION public.count_task_change();


--
-- Name: tasks tasks_count_insert; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER tasks_count_insert BEFORE INSERT ON public.tasks FOR EACH ROW WHEN ((new.version = 1)) EXECUTE FUNCTION public.count_task_change();


--
-- Name: tasks tasks_count_update; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER tasks_count_update BEFORE UPDATE ON public.tasks FOR EACH ROW WHEN ((new.version = old.version)) EXECUTE FUNCTION public.count_task_change();


--
-- Name: tasks tasks_keep_owner; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER tasks_keep_owner BEFORE UPDATE OF user_id ON public.tasks FOR EACH ROW WHEN ((new.user_id <> old.user_id)) EXECUTE FUNCTION public.keep_task_owner();


--
-- Name: tasks tasks_tag_bits_insert; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER tasks_tag_bits_insert BEFORE INSERT ON public.tasks FOR EACH ROW WHEN ((new.tags <> '{}'::text[])) EXECUTE FUNCTION public.set_tag_bits();


--
-- Name: tasks tasks_tag_bits_update; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER tasks_tag_bits_update BEFORE UPDATE ON public.tasks FOR EACH ROW WHEN (((new.tags <> old.tags) OR (old.tag_bits = '-1'::integer))) EXECUTE FUNCTION public.set_tag_bits();


--
-- Name: idempotency_keys; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.idempotency_keys ENABLE ROW LEVEL SECURITY;

--
-- Name: idempotency_keys idempotency_keys_owner; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY idempotency_keys_owner ON public.idempotency_keys USING ((user_id = current_setting('app.user_id'::text, true)));


--
-- Name: purged_tasks; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.purged_tasks ENABLE ROW LEVEL SECURITY;

--
-- Name: purged_tasks purged_tasks_owner; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY purged_tasks_owner ON public.purged_tasks USING ((user_id = current_setting('app.user_id'::text, true)));


--
-- Name: task_counters; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.task_counters ENABLE ROW LEVEL SECURITY;

--
-- Name: task_counters task_counters_owner; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY task_counters_owner ON public.task_counters USING ((user_id = current_setting('app.user_id'::text, true)));


--
-- Name: tasks; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.tasks ENABLE ROW LEVEL SECURITY;

--
-- Name: tasks tasks_owner; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY tasks_owner ON public.tasks USING ((user_id = current_setting('app.user_id'::text, true)));


--
-- PostgreSQL database dump complete
--

\unrestrict dbmate


--
-- Dbmate schema migrations
--

INSERT INTO public.schema_migrations (version) VALUES
    ('0001'),
    ('0002'),
    ('0003'),
    ('0004'),
    ('0005'),
    ('0006'),
    ('0007'),
    ('0008'),
    ('0009'),
    ('0010'),
    ('0011'),
    ('0012'),
    ('0013'),
    ('0014');
