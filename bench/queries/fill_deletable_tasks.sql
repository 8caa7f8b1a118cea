-- Tasks that exist to be deleted, of users who own nothing else.
INSERT INTO tasks (user_id, title, description, version)
SELECT
    'deleter-' || (number %% %(users)s::int),
    'Task ' || number,
    'What is to be done about task ' || number,
    number / %(users)s::int + 2
FROM generate_series(0, %(tasks)s::int - 1) AS number;
