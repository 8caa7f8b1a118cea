"""Who gets how much, and when, so that nobody's requests bring down everybody's."""
