"""The backend on SQL: each verb is one short transaction."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable
from datetime import datetime
from functools import cached_property, partial
from itertools import groupby
from typing import TypeVar

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Engine,
    MetaData,
    and_,
    bindparam,
    delete,
    exc,
    func,
    insert,
    literal,
    literal_column,
    select,
    tuple_,
    update,
)
from sqlalchemy.engine import Connection

from ...errors import BackendUnavailable
from ...model import NOWHERE, Position, State
from ..base import SLICE, Command, Key, Reading, Renewal, Told, chunks
from ..moments import milliseconds, moment
from ..steps import (
    ALIVE,
    DRAINED,
    LOST,
    Counters,
    Lease,
    Step,
    StepBackend,
    users_in,
)
from ..stored import COMMANDS_KEPT, Damaged, is_id, is_whole, told_of
from .database import Database
from .due import Due
from .expressions import Expressions
from .models import Models, map_models
from .seen import Seen
from .state import everything, stored_of
from .statements import Statements
from .step import SQLStep
from .tables import Tables
from .transaction import Transaction

log = logging.getLogger(__name__)

T = TypeVar("T")


class SQLAlchemyBackend(StepBackend):
    """Members in the tables of one database.

    :param engine: the backend takes its connections from here and from nowhere else.
    :param metadata: where the tables are declared; the app's own, so that its migrations make
        them, or ``None`` for a separate one.
    :param makes_tables: may the backend make missing tables by itself?
    :param clock: gives seconds instead of the database's clock; for tests only.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        prefix: str = "presence",
        metadata: MetaData | None = None,
        worker_timeout: float = 15,
        makes_tables: bool = False,
        clock: Callable[[], float] | None = None,
    ) -> None:
        super().__init__(worker_timeout=worker_timeout)
        self.engine = engine
        self.tables = Tables(MetaData() if metadata is None else metadata, prefix)
        self.database = Database(
            engine,
            make_tables=self.prepare if makes_tables else None,
            on_failure=self.note_failure,
        )
        self.dialect = self.database.dialect
        self._clock = clock
        self._now: ColumnElement[int] = literal_column(self.dialect.clock)
        self.statements = Statements(self.tables, self.dialect, self._now)
        self._everything = everything(self.tables, self._now)
        self.seen = Seen(self)
        self.due_ones = Due(self)

    @cached_property
    def models(self) -> Models:
        """Mapped classes of the tables, made when they are first asked for."""
        return map_models(self.tables)

    @cached_property
    def expressions(self) -> Expressions:
        """Presence in SQL expressions, for the app's own queries."""
        return Expressions(self.tables, self.engine, self._clock)

    # Connections

    def run(self, step: Callable[[Step], T]) -> T:
        def work(transaction: Transaction) -> T:
            return step(SQLStep(self, transaction))

        try:
            return self.database.step(work)
        except Damaged as damage:
            self._forget(damage)
        return self.database.step(work)

    def _forget(self, damage: Damaged) -> None:
        """Let a damaged channel begin anew."""
        channel = damage.channel
        log.error("The presence channel %s is damaged and begins anew: %s", channel, damage)
        channels, members = self.tables.channels, self.tables.members

        def work(connection: Connection) -> None:
            connection.execute(delete(channels).where(channels.c.name == channel))
            connection.execute(delete(members).where(members.c.channel == channel))

        self.database.transact(work)

    def now(self, connection: Connection) -> int:
        """The store's clock in milliseconds."""
        if self._clock is not None:
            return int(self._clock() * 1000)
        return int(self.statements.clock.run(connection).scalar_one())

    @property
    def has_clock(self) -> bool:
        """Is the time not the database's?"""
        return self._clock is not None

    def clock(self) -> ColumnElement[int]:
        """The store's clock in milliseconds, for use in a statement."""
        return self._now if self._clock is None else literal(int(self._clock() * 1000), BigInteger)

    # Members

    def touch(self, channel: str, client_id: str, timeout: float) -> bool:
        members = self.tables.members

        def work(connection: Connection) -> bool:
            now = self.now(connection)
            mine = and_(members.c.channel == channel, members.c.client_id == client_id)
            touched = connection.execute(
                update(members)
                .where(mine, members.c.worker.is_(None))
                .values(deadline=now + milliseconds(timeout), held_at=now)
            )
            if touched.rowcount == 1:
                return True
            return connection.execute(select(members.c.place).where(mine)).first() is not None

        return self.database.transact(work)

    def release(self, worker: str, keys: Collection[Key], *, after: float) -> None:
        members = self.tables.members

        def work(connection: Connection, some: list[Key]) -> None:
            now = self.now(connection)
            for channel, group in groupby(some, key=lambda key: key.channel):
                connection.execute(
                    update(members)
                    .where(
                        members.c.channel == channel,
                        members.c.client_id.in_([key.client_id for key in group]),
                        members.c.worker == worker,
                    )
                    .values(worker=None, deadline=now + milliseconds(after), held_at=now)
                )

        for some in chunks(sorted(keys)):
            self.database.transact(partial(work, some=some))

    # Workers

    def renew(
        self,
        worker: str,
        timeout: float,
        *,
        create: bool = False,
        channels: Collection[str] = (),
        cursor: int | None = None,
    ) -> Renewal:
        workers = self.tables.workers

        def work(connection: Connection) -> Renewal:
            now = self.now(connection)
            span = milliseconds(timeout)
            renewed = connection.execute(
                update(workers)
                .where(workers.c.id == worker, workers.c.status == ALIVE)
                .values(lease=now + span, timeout=span)
            )
            held = renewed.rowcount == 1
            if not held and create and self._is_new(connection, worker):
                connection.execute(
                    insert(workers).values(id=worker, status=ALIVE, lease=now + span, timeout=span)
                )
                held = True
            latest, commands = self._commands(connection, cursor, now)
            return Renewal(held, latest, self._positions(connection, channels), commands)

        return self.database.transact_apart(work)

    def _is_new(self, connection: Connection, worker: str) -> bool:
        workers = self.tables.workers
        known = select(workers.c.id).where(workers.c.id == worker)
        return connection.execute(known).first() is None

    def _positions(self, connection: Connection, names: Collection[str]) -> dict[str, Position]:
        channels = self.tables.channels
        positions = dict.fromkeys(names, NOWHERE)
        for some in chunks(names):
            found = connection.execute(
                select(channels.c.name, channels.c.epoch, channels.c.revision).where(
                    channels.c.name.in_(some)
                )
            )
            positions.update(
                (name, Position(epoch, revision))
                for name, epoch, revision in found
                if is_id(epoch) and is_whole(revision)
            )
        return positions

    def _commands(
        self, connection: Connection, cursor: int | None, now: int
    ) -> tuple[int, list[Told]]:
        commands = self.tables.commands
        latest = connection.execute(select(func.max(commands.c.number))).scalar() or 0
        if cursor is None or cursor == latest:
            return latest, []
        if cursor > latest:
            # The store lost data and numbers from the start: what is there may all be new.
            cursor = 0
        found = connection.execute(
            select(commands).where(commands.c.number > cursor).order_by(commands.c.number)
        ).all()
        told = [told_of(row.number, row.at, tuple(row)[2:], now) for row in found]
        return max([latest, *(row.number for row in found)]), [one for one in told if one]

    def end_worker(self, worker: str, *, after: float) -> None:
        workers = self.tables.workers

        def work(connection: Connection) -> None:
            span = milliseconds(after)
            connection.execute(
                update(workers)
                .where(workers.c.id == worker, workers.c.status == ALIVE)
                .values(status=DRAINED, lease=self.now(connection) + span, timeout=span)
            )

        self.database.transact(work)

    def workers(self) -> list[str]:
        leases, now = self.database.ask(self.due_ones.read_moment)
        return sorted(worker for worker, lease in leases.items() if lease.is_alive(now))

    def members_of_worker(self, worker: str, *, after: Key | None, limit: int) -> list[Key]:
        members = self.tables.members
        channels = self.tables.channels
        query = (
            # A member whose channel the store lost is lost with it.
            select(members.c.channel, members.c.client_id)
            .join(channels, channels.c.name == members.c.channel)
            .where(members.c.worker == worker)
            .order_by(members.c.channel, members.c.client_id)
            .limit(limit)
        )
        if after is not None:
            query = query.where(tuple_(members.c.channel, members.c.client_id) > after)
        found = self.database.read(lambda connection: connection.execute(query).all())
        return [Key(*row) for row in found]

    # Ending what is due

    def end_leases(self) -> None:
        self.due_ones.end_leases()

    def due(self, limit: int) -> list[str]:
        return self.due_ones.channels(limit)

    # Reading

    def state(self, channel: str) -> Reading:
        try:
            return self._state(channel)
        except Damaged as damage:
            self._forget(damage)
        return self._state(channel)

    def _state(self, channel: str) -> Reading:
        question = self._everything.of(here=channel)
        found = self.database.ask(lambda asked: next(asked.ask(question)))
        stored = stored_of(found, channel)
        if stored is None:
            return Reading(State(channel), [])
        counters, members, leases, now = stored
        if self._clock is not None:
            now = int(self._clock() * 1000)
        deadlines = {*members["deadline"]} - {None}
        if self._is_over(leases.values(), now) or min(deadlines, default=now + 1) <= now:
            self._mark_orphans({worker for worker, lease in leases.items() if lease is None})
            return Reading(None, self.settle(channel).changes)
        shown = (counters.epoch, counters.revision, counters.count, counters.anonymous)
        return Reading(State(channel, *shown, users_in(members)), [])

    def _is_over(self, leases: Iterable[Lease | None], now: int) -> bool:
        """Is the lease of one of these workers over? So is one that the store lost."""
        spared = self.spares_leases
        return any(lease is None or lease.is_over(now, spared=spared) for lease in leases)

    def _mark_orphans(self, workers: Collection[str]) -> None:
        """Members of workers that the store lost are due like those of a worker that died."""
        lost = [{"id": name, "status": LOST, "lease": 0, "timeout": 0} for name in sorted(workers)]
        if lost:
            mark = self.dialect.upsert(self.tables.workers, "id")
            self.database.transact(lambda connection: connection.execute(mark, lost))

    def count(self, channel: str) -> Reading:
        if self.due_ones.is_in(channel):
            return Reading(None, self.settle(channel).changes)
        channels = self.tables.channels
        columns = [channels.c[name] for name in ("epoch", "revision", "count", "anonymous")]
        query = select(*columns).where(channels.c.name == channel)
        found = self.database.read(lambda connection: connection.execute(query).first())
        if found is None:
            return Reading(State(channel), [])
        epoch, revision, count, anonymous = found
        try:
            Counters(epoch, revision, 0, count, anonymous).check(channel)
        except Damaged as damage:
            self._forget(damage)
            return Reading(State(channel), [])
        return Reading(State(channel, epoch, revision, count, anonymous), [])

    def channels(self, prefix: str | None = None) -> dict[str, int]:
        channels = self.tables.channels
        query = (
            select(channels.c.name, channels.c.count)
            .where(channels.c.count + channels.c.anonymous > 0)
            .order_by(channels.c.name)
        )
        if prefix is not None:
            query = query.where(channels.c.name.startswith(f"/{prefix}/", autoescape=True))
        return self.database.read(
            lambda connection: {
                name: count
                for name, count in connection.execute(query)
                # LIKE folds case on some databases.
                if prefix is None or name.startswith(f"/{prefix}/")
            }
        )

    def channels_of(self, *, user_id: str | None = None, client_id: str | None = None) -> list[str]:
        members = self.tables.members
        by_client = members.c.client_id == client_id
        whose = by_client if user_id is None else members.c.user_id == user_id
        query = select(members.c.channel).where(whose).distinct().order_by(members.c.channel)
        return self.database.read(lambda connection: list(connection.execute(query).scalars()))

    def last_seen(self, user_ids: Collection[str]) -> dict[str, datetime | None]:
        found: dict[str, int] = {}
        for some in chunks(user_ids):
            found |= self.database.read(partial(self.seen.read, user_ids=some))
        return {user: moment(found[user]) if user in found else None for user in user_ids}

    # Upkeep

    def reset_epoch(self, channel: str, old: str, new: str) -> bool:
        channels = self.tables.channels
        query = (
            update(channels)
            .where(channels.c.name == channel, channels.c.epoch == old)
            .values(epoch=new)
        )
        return self.database.transact(lambda connection: connection.execute(query).rowcount == 1)

    def drop_empty_channels(self, retention: float) -> int:
        self._mark_orphans(self._orphans())
        self._forget_seen()
        channels, commands = self.tables.channels, self.tables.commands

        def work(connection: Connection) -> int:
            now = self.now(connection)
            latest = select(func.max(commands.c.number)).scalar_subquery()
            old = select(commands.c.number).where(
                commands.c.at <= now - COMMANDS_KEPT, commands.c.number < latest
            )
            numbers = list(connection.execute(old).scalars())
            for some in chunks(numbers):
                connection.execute(delete(commands).where(commands.c.number.in_(some)))
            empty = and_(
                channels.c.vacated <= now - milliseconds(retention),
                channels.c.count == 0,
                channels.c.anonymous == 0,
            )
            names = select(channels.c.name).where(empty).order_by(channels.c.name).limit(SLICE)
            some = list(connection.execute(names).scalars())
            if not some:
                return 0
            dropped = connection.execute(delete(channels).where(channels.c.name.in_(some), empty))
            return dropped.rowcount

        dropped = 0
        while True:
            found = self.database.transact(work)
            dropped += found
            if found < SLICE:
                return dropped

    def _forget_seen(self) -> None:
        forget = partial(self.seen.forget, retention=milliseconds(self.last_seen_retention))
        while self.database.transact(forget) == SLICE:
            pass

    def _orphans(self) -> list[str]:
        """Workers named by members and unknown to the store, by hopping along the index."""
        members, workers = self.tables.members, self.tables.workers

        def work(connection: Connection) -> list[str]:
            known = set(connection.execute(select(workers.c.id)).scalars())
            query = select(func.min(members.c.worker)).where(members.c.worker > bindparam("after"))
            found = [""]
            while worker := connection.execute(query, {"after": found[-1]}).scalar():
                found.append(worker)
            return [worker for worker in found[1:] if worker not in known]

        return self.database.read(work)

    def tell(self, command: Command, *, wake: bool = True) -> int:
        commands = self.tables.commands

        def work(connection: Connection) -> int:
            latest = connection.execute(select(func.max(commands.c.number))).scalar()
            now = self.now(connection)
            # Never below a number that a store which lost its data may have given before.
            number = max((latest or 0) + 1, now)
            connection.execute(
                insert(commands).values(
                    number=number,
                    at=now,
                    kind=command.kind,
                    channel=command.channel,
                    user_id=command.user_id,
                    client_id=command.client_id,
                    reason=command.reason,
                )
            )
            return number

        return self.database.transact(work)

    def prepare(self) -> None:
        try:
            with self.dialect.writing(self.engine) as connection:
                self.tables.metadata.create_all(connection, tables=self.tables.all)
        except exc.SQLAlchemyError as error:
            unavailable = self.database.unavailable(error)
            if isinstance(error, exc.DBAPIError) and error.statement is not None:
                unavailable = BackendUnavailable(
                    f"{unavailable} — run 'flask presence init-db' as a database user who may "
                    "create tables, or let your migrations make them."
                )
            raise unavailable from error

    def check(self) -> None:
        def work(connection: Connection) -> None:
            for table in self.tables.all:
                connection.execute(select(table).limit(1))

        self.database.read(work)

    def has_begun_anew(self) -> bool:
        return self.dialect.server_run.take_another()

    @property
    def is_restored(self) -> bool:
        return self.dialect.server_run.is_restored

    def after_fork(self) -> None:
        self.database.after_fork()

    def close(self) -> None:
        self.database.close()
