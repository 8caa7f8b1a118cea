-- Users take turns, as in real life: a user's tasks lie far apart in the heap.
INSERT INTO tasks (user_id, title, description, version)
SELECT
    'user-' || (number %% %(users)s::int),
    'Task ' || number,
    'What is to be done about task ' || number,
    number / %(users)s::int + 2
FROM generate_series(0, %(users)s::int * %(tasks_per_user)s::int - 1) AS number;
