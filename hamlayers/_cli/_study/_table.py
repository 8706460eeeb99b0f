"""A tidy table on the disc that grows by whole rows, and that an interrupted run can take up again."""

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias, final

from .._user_files import BadInput, write_whole


Row: TypeAlias = dict[str, Any]
Columns: TypeAlias = dict[str, type]


@final
class Table:
    """The rows of a CSV file with these columns, one row for every value of the key.

    The file is replaced as a whole with every row that is added, so that it holds either the old rows or the new one as
    well, whenever the process is killed.

    **Arguments:**

    - `path`: of the file, which need not exist.
    - `columns`: name and type (`str`, `int` or `float`) of each, in order.
    - `key`: the columns that tell the rows apart.
    - `settings`: columns that must have the same value in all rows, and that value.

    **Raises:** `BadInput` for a file that cannot be read, is no such table, is cut short, holds a row twice, or was
    made with other settings.
    """

    def __init__(self, path: str, columns: Columns, key: Sequence[str], settings: Row):
        self.path, self.columns, self.key, self.settings = path, columns, tuple(key), settings
        self.text = _read(path)
        self.rows: list[Row] = _parse(path, self.text, columns)
        for number, row in enumerate(self.rows, start=2):
            for name, wanted in settings.items():
                if _shown(row[name]) != _shown(wanted):
                    raise BadInput(
                        f"{path}, line {number}: made with {name} {row[name]}, this run has {wanted}; "
                        "give the same options, or another file"
                    )
        self.done = {self._key(row) for row in self.rows}
        if len(self.done) < len(self.rows):
            raise BadInput(f"{path}: a row for the same {', '.join(self.key)} is there twice")

    def _key(self, row: Row) -> tuple[Any, ...]:
        return tuple(row[name] for name in self.key)

    def has(self, row: Row) -> bool:
        """Whether there is a row with the key of this one."""
        return self._key(row) in self.done

    def missing(self, rows: Sequence[Row], report: Callable[[str], None]) -> list[Row]:
        """Those of the rows, known by their keys, that are not there yet; reports how many are."""
        found = [row for row in rows if not self.has(row)]
        if len(found) < len(rows):
            report(f"{len(rows) - len(found)} of {len(rows)} rows are there already")
        return found

    def add(self, row: Row) -> None:
        """Add a row, on the disc first.

        **Raises:** `BadInput` if the disc refuses, or another process has changed the file.
        """
        if _read(self.path) != self.text:
            raise BadInput(f"{self.path} was changed while this run was at work; is another one writing to it?")
        full = {**self.settings, **row}
        if self.has(full):
            raise BadInput(f"{self.path}: a row for the same {', '.join(self.key)} is there already")
        text = (self.text or _line(self.columns)) + _line(_shown(full[name]) for name in self.columns)
        write_whole(self.path, "--table", lambda file: file.write(text.encode()))
        self.text = text
        self.rows.append(full)
        self.done.add(self._key(full))


def read_rows(path: str, columns: Columns) -> list[Row]:
    """The rows of a finished table.

    **Raises:** `BadInput` as [`Table`][], and for a file that does not exist or has no rows.
    """
    if not Path(path).exists():
        raise BadInput(f"--table: there is no file {path}")
    rows = _parse(path, _read(path), columns)
    if not rows:
        raise BadInput(f"--table: {path} holds no rows")
    return rows


def _line(values: Any) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(values)
    return line.getvalue()


def _shown(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8") if Path(path).exists() else ""
    except UnicodeDecodeError:
        raise BadInput(f"--table: {path} is not a text file") from None
    except OSError as error:
        raise BadInput(f"--table: cannot read {path}: {error.strerror or error}") from None


def _parse(path: str, text: str, columns: Columns) -> list[Row]:
    if not text:
        return []
    header, *lines = text.splitlines()
    if header + "\n" != _line(columns):
        if _line(columns).startswith(text):
            raise BadInput(f"--table: {path} is cut short in its first line; remove it")
        raise BadInput(f"--table: {path} is not a table of this study: its first line names other columns")
    if not text.endswith("\n"):
        raise BadInput(f"--table: {path} is cut short: line {len(lines) + 1} has no end; remove that line to go on")
    return [_row(path, number, line, columns) for number, line in enumerate(lines, start=2)]


def _row(path: str, number: int, line: str, columns: Columns) -> Row:
    values = next(csv.reader([line]), [])
    if len(values) != len(columns):
        raise BadInput(f"--table: {path}, line {number}: {len(values)} entries instead of {len(columns)}")
    row = {}
    for (name, kind), value in zip(columns.items(), values, strict=True):
        try:
            row[name] = kind(value)
        except ValueError:
            raise BadInput(f"--table: {path}, line {number}: {name} cannot be {value!r}") from None
    return row
