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
-- Name: count_task_change(); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.count_task_change() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
DECLARE
    owner text := CASE TG_OP WHEN 'DELETE' THEN OLD.user_id ELSE NEW.user_id END;
    more bigint := CASE TG_OP WHEN 'INSERT' THEN 1 WHEN 'DELETE' THEN -1 ELSE 0 END;
    counted bigint;
BEGIN
    UPDATE task_counters SET version = version + 1, stored = stored + more
    WHERE user_id = owner
    RETURNING version INTO counted;
    IF counted IS NULL THEN
        INSERT INTO task_counters AS counter (user_id, version, stored)
        SELECT owner, 2, count(*) + greatest(more, 0) FROM tasks WHERE user_id = owner
        ON CONFLICT (user_id) DO UPDATE
            SET version = counter.version + 1, stored = counter.stored + more
        RETURNING version INTO counted;
    END IF;
    IF TG_OP = 'DELETE' THEN
        INSERT INTO purged_tasks (user_id, version, id) VALUES (owner, counted, OLD.id);
        RETURN NULL;
    END IF;
    NEW.version := counted;
    RETURN NEW;
END $$;


SET default_tablespace = '';

SET default_table_access_method = heap;

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
    CONSTRAINT tasks_description_length CHECK ((char_length(description) <= 5000)),
    CONSTRAINT tasks_due_at_range CHECK (((due_at >= '1970-01-01 00:00:00+00'::timestamp with time zone) AND (due_at < '2201-01-01 00:00:00+00'::timestamp with time zone))),
    CONSTRAINT tasks_tags_count CHECK ((cardinality(tags) <= 20)),
    CONSTRAINT tasks_tags_length CHECK (((array_position(tags, ''::text) IS NULL) AND (array_position(tags, NULL::text) IS NULL) AND (char_length(array_to_string(tags, ''::text)) <= 1000))),
    CONSTRAINT tasks_title_length CHECK (((char_length(title) >= 1) AND (char_length(title) <= 200))),
    CONSTRAINT tasks_user_id_length CHECK (((char_length(user_id) >= 1) AND (char_length(user_id) <= 255)))
);


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
    ADD CONSTRAINT tasks_pkey PRIMARY KEY (user_id, id);


--
-- Name: tasks_trash; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX tasks_trash ON public.tasks USING btree (user_id, version, id) INCLUDE (deleted_at) WHERE (deleted_at IS NOT NULL);


--
-- Name: tasks_version; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX tasks_version ON public.tasks USING btree (user_id, version, id);


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
    ('0009');
