"""Who writes what where: users, groups, topics and posts."""

# Flask-Login ships no types, and db.Model is made while the program runs.
# mypy: disable-error-code="misc,name-defined"

from __future__ import annotations

import time

from flask_login import AnonymousUserMixin, UserMixin
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import Column, ForeignKey, String, Table, func, select
from sqlalchemy.exc import DatabaseError
from sqlalchemy.orm import DeclarativeBase, Mapped, column_property, mapped_column, relationship


class Base(DeclarativeBase):
    pass


db = SQLAlchemy(model_class=Base)

memberships = Table(
    "membership",
    db.metadata,
    Column("user_id", ForeignKey("user.id"), primary_key=True),
    Column("group_id", ForeignKey("group.id"), primary_key=True),
)


class Group(db.Model):
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(30), unique=True)


class User(UserMixin, db.Model):
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(30), unique=True)
    groups: Mapped[list[Group]] = relationship(secondary=memberships)

    @property
    def initials(self) -> str:
        words = self.name.split()
        return (words[0][0] + (words[-1][0] if len(words) > 1 else "")).upper()


class Post(db.Model):
    id: Mapped[int] = mapped_column(primary_key=True)
    topic_id: Mapped[int] = mapped_column(ForeignKey("topic.id"), index=True)
    author_id: Mapped[int] = mapped_column(ForeignKey("user.id"))
    text: Mapped[str] = mapped_column(String(2000))
    created: Mapped[float] = mapped_column(default=time.time)
    author: Mapped[User] = relationship(lazy="joined")


class Topic(db.Model):
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column(String(80), unique=True)
    intro: Mapped[str] = mapped_column(String(400))
    group_id: Mapped[int | None] = mapped_column(ForeignKey("group.id"))
    group: Mapped[Group | None] = relationship(lazy="joined")
    posts: Mapped[list[Post]] = relationship(order_by=Post.id)
    replies: Mapped[int] = column_property(
        select(func.count(Post.id)).where(Post.topic_id == id).scalar_subquery()
    )

    @property
    def channel(self) -> str:
        return f"/topic/{self.id}"

    def open_to(self, user: User | AnonymousUserMixin) -> bool:
        return self.group is None or (user.is_authenticated and self.group in user.groups)


def first_start() -> None:
    """Makes the tables and a few topics where there are none."""
    try:
        db.create_all()
        if db.session.scalar(select(Topic)) is None:
            db.session.add_all(seed())
            db.session.commit()
    except DatabaseError:  # another worker was a moment earlier
        db.session.rollback()


def seed() -> list[Topic]:
    return [
        Topic(
            title="Say hello",
            intro="New here? Tell the others what you are building, and what brought you.",
        ),
        Topic(
            title="Show what you made",
            intro="A link, two sentences, and the one thing you would like to hear about it.",
        ),
        Topic(
            title="Questions and answers",
            intro="Stuck? Say what you tried and what you saw. The faces tell who is around.",
        ),
        Topic(
            title="The next release",
            intro="What goes in, what has to wait. Only maintainers see this, and who reads it.",
            group=Group(name="Maintainers"),
        ),
    ]
