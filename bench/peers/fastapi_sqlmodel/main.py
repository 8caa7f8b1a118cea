"""The same operations on the same table, the way FastAPI's and SQLModel's guides write them.

They also refresh a task after each commit, which `expire_on_commit=False` makes needless.
"""

import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.middleware.cors import CORSMiddleware
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from jose import JWTError, jwt
from sqlalchemy import URL, BigInteger, Column, DateTime, Identity, make_url
from sqlalchemy.ext.asyncio import create_async_engine
from sqlmodel import Field, SQLModel, col, select
from sqlmodel.ext.asyncio.session import AsyncSession


def asyncpg_url(text: str) -> URL:
    url = make_url(text).set(drivername="postgresql+asyncpg")
    sslmode = url.query.get("sslmode")
    url = url.difference_update_query(["sslmode", "channel_binding"])
    return url.update_query_dict({"ssl": sslmode}) if sslmode else url


def now() -> datetime:
    return datetime.now(UTC)


class TaskBase(SQLModel):
    title: str = Field(min_length=1, max_length=200)
    description: str | None = Field(default=None, max_length=5000)


class Task(TaskBase, table=True):
    __tablename__ = "tasks"

    user_id: str = Field(primary_key=True)
    id: int | None = Field(
        default=None, sa_column=Column(BigInteger, Identity(always=True), primary_key=True)
    )
    completed: bool = False
    created_at: datetime = Field(default_factory=now, sa_type=DateTime(timezone=True))
    updated_at: datetime = Field(default_factory=now, sa_type=DateTime(timezone=True))


class TaskCreate(TaskBase):
    model_config = {"extra": "forbid", "str_strip_whitespace": True}


class TaskUpdate(TaskCreate):
    completed: bool = False


class TaskPublic(TaskBase):
    id: int
    user_id: str
    completed: bool
    created_at: datetime
    updated_at: datetime


engine = create_async_engine(asyncpg_url(os.environ["DATABASE_URL"]), pool_size=10, max_overflow=10)
secret = os.environ["BETTER_AUTH_SECRET"]
app = FastAPI(title="Tasks")
app.add_middleware(
    CORSMiddleware,
    allow_origins=["http://localhost:3000"],
    allow_methods=["*"],
    allow_headers=["*"],
    expose_headers=["Location"],
)


async def open_session() -> AsyncIterator[AsyncSession]:
    async with AsyncSession(engine, expire_on_commit=False) as session:
        yield session


async def require_owner(
    user_id: str, credentials: Annotated[HTTPAuthorizationCredentials, Depends(HTTPBearer())]
) -> str:
    try:
        claims = jwt.decode(credentials.credentials, secret, algorithms=["HS256"])
    except JWTError as error:
        raise HTTPException(401, "The token is not valid.") from error
    if claims.get("sub") != user_id:
        raise HTTPException(401, "The token belongs to another user.")
    return user_id


Owner = Annotated[str, Depends(require_owner)]
Session = Annotated[AsyncSession, Depends(open_session)]


async def find_task(user_id: Owner, task_id: int, session: Session) -> Task:
    task = await session.get(Task, (user_id, task_id))
    if task is None:
        raise HTTPException(404, f"Resource not found: task {task_id}")
    return task


FoundTask = Annotated[Task, Depends(find_task)]


@app.get("/health")
async def health() -> dict[str, str]:
    return {"status": "healthy"}


@app.get("/api/{user_id}/tasks", response_model=list[TaskPublic])
async def list_tasks(user_id: Owner, session: Session) -> object:
    statement = select(Task).where(Task.user_id == user_id).order_by(col(Task.id).desc())
    return (await session.exec(statement)).all()


@app.post("/api/{user_id}/tasks", response_model=TaskPublic, status_code=201)
async def create_task(
    user_id: Owner, body: TaskCreate, session: Session, request: Request, response: Response
) -> Task:
    task = Task(user_id=user_id, title=body.title, description=body.description)
    session.add(task)
    await session.commit()
    response.headers["Location"] = f"{request.url.path}/{task.id}"
    return task


@app.get("/api/{user_id}/tasks/{task_id}", response_model=TaskPublic)
async def get_task(task: FoundTask) -> Task:
    return task


@app.put("/api/{user_id}/tasks/{task_id}", response_model=TaskPublic)
async def update_task(task: FoundTask, body: TaskUpdate, session: Session) -> Task:
    task.sqlmodel_update(body.model_dump(exclude_unset=True))
    task.updated_at = now()
    await session.commit()
    return task


@app.delete("/api/{user_id}/tasks/{task_id}", status_code=204)
async def delete_task(task: FoundTask, session: Session) -> None:
    await session.delete(task)
    await session.commit()


@app.patch("/api/{user_id}/tasks/{task_id}/complete", response_model=TaskPublic)
async def toggle_task(task: FoundTask, session: Session) -> Task:
    task.completed = not task.completed
    task.updated_at = now()
    await session.commit()
    return task
