"""The six operations, as CONTRACT demands them of one user."""

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

import pytest
from flask import Flask
from support import User, assert_error

FIELDS = {"id", "user_id", "title", "description", "completed", "created_at", "updated_at"}
LARGEST_ID = 2**63 - 1


def test_a_user_without_tasks_has_an_empty_list(alice: User):
    response = alice.call("GET")
    assert response.status_code == 200
    assert response.json == []
    assert response.content_type == "application/json"


def test_created_task_is_answered_whole(alice: User):
    response = alice.call("POST", json={"title": "Buy milk", "description": "Two bottles"})
    task = response.json
    assert response.status_code == 201
    assert task.keys() == FIELDS
    assert (task["user_id"], task["title"], task["description"]) == ("alice", "Buy milk", "Two bottles")
    assert task["completed"] is False
    assert isinstance(task["id"], int)
    assert task["created_at"] == task["updated_at"]
    assert datetime.fromisoformat(task["created_at"]).utcoffset() is not None
