"""Limits and queues, so that no user's requests slow down or fail everybody else's."""
