"""What only the sources have, not the image: a PostgreSQL of its own, generated files."""
