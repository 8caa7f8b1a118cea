-- migrate:up
SET LOCAL lock_timeout = '2s';

-- The key begins with user_id: a user's rows stand together, and the table can be spread by it.
CREATE TABLE tasks (
    user_id text NOT NULL,
    id bigint GENERATED ALWAYS AS IDENTITY,
    title text NOT NULL,
    description text,
    completed boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT tasks_pkey PRIMARY KEY (user_id, id),
    CONSTRAINT tasks_user_id_length CHECK (char_length(user_id) BETWEEN 1 AND 255),
    CONSTRAINT tasks_title_length CHECK (char_length(title) BETWEEN 1 AND 200),
    CONSTRAINT tasks_description_length CHECK (char_length(description) <= 5000)
);

-- migrate:down
SET LOCAL lock_timeout = '2s';

DROP TABLE tasks;
