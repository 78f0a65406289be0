"""Cells of the hospital's tables: encodings, delimiters, spreadsheets' habits. Clear ones are read, others are refused.

A refusal never repeats the cell: it may hold a name. The row number is the spreadsheet's (the header is row 1).
"""

from __future__ import annotations

import csv
import io
import re
from datetime import date, timedelta
from typing import Literal

from tasks.domain.disease import LABELS
from tasks.domain.errors import BadInput

MAX_BYTES = 256 * 2**20
"""A table of clinical rows is never larger than this."""

DateOrder = Literal["dmy", "mdy", "ymd", "mixed", None]
"""What a column says about the order in its dates: day, month or year first, orders that contradict, or nothing."""

_SIDES = {"l": "L", "left": "L", "links": "L", "r": "R", "right": "R", "rechts": "R"}
_ROMAN = {"I": "1", "II": "2", "III": "3", "IV": "4", "V": "5", "VI": "6"}
_YES_NO = {"0": "0", "no": "0", "false": "0", "1": "1", "yes": "1", "true": "1"}
_ENGLISH = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTHS = {name: n for n, name in enumerate(_ENGLISH, 1)} | {
    "jän": 1,
    "mär": 3,
    "mrz": 3,
    "mai": 5,
    "okt": 10,
    "dez": 12,
}
_AMBIGUOUS = re.compile(r"(\d{1,2})([./-])(\d{1,2})\2(\d{2}|\d{4})(?!\d)")
_TIME = r"[T ]+\d{1,2}:\d{2}(:\d{2}([.,]\d+)?)?\s?([AP]M)?(Z|[+-]\d{2}:?\d{2})?$"
_EXCEL_DAY_0 = date(1899, 12, 30)


def read_csv(data: bytes) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """(columns, [(row number, {column: cell})]) of a CSV in UTF-8, UTF-16 with BOM or Latin-1, split at , ; or tab.

    Raises BadInput when it is no table. Blank rows are left out; column names are lower case with underscores.
    """
    if len(data) > MAX_BYTES:
        raise BadInput("too_large", f"{len(data) // 2**20} MiB; a table may have {MAX_BYTES // 2**20} MiB")
    text = decode(data)
    if "\0" in text:
        raise BadInput("not_text", "holds zero bytes; save it as CSV (UTF-8)")
    lines = text.splitlines(keepends=True)
    first = 1 if lines and lines[0].strip().lower().startswith("sep=") else 0
    reader = csv.reader(io.StringIO("".join(lines[first:]), newline=""), delimiter=delimiter_of(lines))
    try:
        rows = [(reader.line_num + first, row) for row in reader if any(cell.strip() for cell in row)]
    except csv.Error:
        raise BadInput("not_csv", "quotes do not match; save it again as CSV") from None
    if not rows:
        raise BadInput("empty", "holds no header row")
    columns = [re.sub(r"[\s\-]+", "_", name.strip().lower()) for name in rows[0][1]]
    doubled = sorted({str(n + 1) for n, name in enumerate(columns) if name and columns.index(name) != n})
    if doubled:
        raise BadInput("doubled_column", f"column {', '.join(doubled)} has the name of an earlier column")
    table: list[tuple[int, dict[str, str]]] = []
    for number, row in rows[1:]:
        cells = {name: plain(row[n]) if n < len(row) else "" for n, name in enumerate(columns) if name}
        if any(cell.strip() for cell in row[len(columns) :]):
            cells[""] = "more cells than columns"  # a decimal comma in a file split at commas, most often
        table.append((number, cells))
    return columns, table


def delimiter_of(lines: list[str]) -> str:
    """What cells are split at: a spreadsheet's own hint (sep=;), else what the header row holds most of."""
    hint = lines[0].strip() if lines else ""
    if hint.lower().startswith("sep="):
        if hint[4:5]:
            return hint[4]
        lines = lines[1:]
    header = next((line for line in lines if line.strip()), "")
    return max(",;\t|", key=header.count)


def plain(cell: str) -> str:
    """Without the ="0815" by which people keep a spreadsheet from eating zeros."""
    cell = cell.strip()
    return cell[2:-1] if cell.startswith('="') and cell.endswith('"') else cell


def decode(data: bytes) -> str:
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", errors="replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", errors="replace")  # what spreadsheets call Latin-1


def date_order(cells: list[str]) -> DateOrder:
    """What all cells of a column together say about the order in dates with slashes, or with two digits of the year."""
    possible: set[DateOrder] | None = None
    for cell in cells:
        if match := _AMBIGUOUS.match(cell.strip()):
            fits = {order for order in _orders(match) if _in_order(match, order)}
            possible = fits if possible is None else possible & fits if fits else possible
    if possible is None:
        return None
    return "mixed" if not possible else next(iter(possible)) if len(possible) == 1 else None


def parse_date(cell: str, order: DateOrder = None) -> date:
    """ISO, DICOM (20260131), 31.01.2026, 31-Jan-2026, January 31, 2026, a spreadsheet's day number; with slashes or two
    digits of the year where it can be but one day, or where `order` (that of the column) is clear."""
    text = re.sub(_TIME, "", cell.strip(), flags=re.IGNORECASE)
    if (match := re.fullmatch(r"(\d{4})([-/.]?)(\d{1,2})\2(\d{1,2})", text)) and (match[2] or len(text) == 8):
        return _day(int(match[1]), int(match[3]), int(match[4]))
    if match := re.fullmatch(r"(\d{1,2})\.\s?(\d{1,2})\.\s?(\d{4})", text):
        return _day(int(match[3]), int(match[2]), int(match[1]))
    match = re.fullmatch(r"(\d{1,2})\.?[- ]([^\W\d]{3})[^\W\d]*\.?,?[- ](\d{4})", text)
    if match and match[2].lower() in _MONTHS:
        return _day(int(match[3]), _MONTHS[match[2].lower()], int(match[1]))
    match = re.fullmatch(r"([^\W\d]{3})[^\W\d]*\.?[- ](\d{1,2}),?[- ](\d{4})", text)
    if match and match[1].lower() in _MONTHS:
        return _day(int(match[3]), _MONTHS[match[1].lower()], int(match[2]))
    if match := re.fullmatch(r"(\d{5})([.,]\d+)?", text):
        number = _EXCEL_DAY_0 + timedelta(days=int(match[1]))
        return _day(number.year, number.month, number.day)
    if match := _AMBIGUOUS.fullmatch(text):
        fits = {o: day for o in _orders(match) if (day := _in_order(match, o))}
        if order in fits:
            return fits[order]
        if len(set(fits.values())) == 1:
            return next(iter(fits.values()))
        if not fits:
            return _day(0, 0, 0)
        if len(match[4]) == 4:
            raise ValueError("may be day/month or month/day; write the year first (2026-01-31)")
    raise ValueError("is not a date that can be read for sure; write the year first (2026-01-31)")


def _orders(match: re.Match[str]) -> tuple[DateOrder, ...]:
    """The orders in which such a date is written at all: month first never with dots, year first never with slashes."""
    if len(match[4]) == 4:
        return ("dmy", "mdy")
    return {".": ("dmy", "ymd"), "/": ("dmy", "mdy"), "-": ("dmy", "mdy", "ymd")}[match[2]]  # type: ignore[return-value]


def _in_order(match: re.Match[str], order: DateOrder) -> date | None:
    """The day in that order; None when there is none that a hospital may write."""
    parts = dict(zip(str(order), (match[1], match[3], match[4]), strict=True))
    for century in (2000, 1900) if len(parts["y"]) < 4 else (0,):
        try:
            return _day(century + int(parts["y"]), int(parts["m"]), int(parts["d"]))
        except ValueError:
            continue
    return None


def _day(year: int, month: int, day: int) -> date:
    try:
        value = date(year, month, day)
    except ValueError:
        raise ValueError("is not a day of the calendar") from None
    if value.year < 1950:
        raise ValueError("lies before 1950")
    if value > date.today() + timedelta(days=1):
        raise ValueError("lies in the future")
    return value


def parse_side(cell: str) -> str:
    if cell.lower() not in _SIDES:
        raise ValueError("is not L or R")
    return _SIDES[cell.lower()]


def parse_label(name: str, cell: str) -> str:
    """The allowed value of the staging system `name` that `cell` means: 'IIIa', '3 A' and '3A' are one."""
    if name == "lesion" and cell.lower() in _YES_NO:
        return _YES_NO[cell.lower()]
    allowed = LABELS[name]
    text = bare_stage(cell)
    if text not in allowed:
        finer = [value for value in allowed if len(text) == 1 and value.startswith(text)]
        raise ValueError(f"needs its substage ({', '.join(finer)})" if finer else f"is not one of {', '.join(allowed)}")
    return text


def bare_stage(cell: str) -> str:
    """'ARCO stage IIIa', '3 A' and '3A' as 3A."""
    text = re.sub(r"[\s_\-]+", "", cell.upper())
    text = re.sub(r"^(STAGE|TYPE|GRADE|ARCO(2019)?|FICAT(ARLET)?|STEINBERG|JIC)+", "", text)
    if match := re.fullmatch(r"(I{1,3}|IV|VI?)([ABC]?)", text):
        text = _ROMAN[match[1]] + match[2]
    return re.sub(r"^(\d)\.0+$", r"\1", text)


def parse_number(cell: str, low: float, high: float) -> float:
    """A number with a decimal point or comma within [low, high]."""
    if not re.fullmatch(r"[+-]?\d+([.,]\d+)?([eE][+-]?\d+)?", cell):
        raise ValueError("is not a number")
    value = float(cell.replace(",", "."))
    if not low <= value <= high:
        raise ValueError(f"lies outside {low:g} to {high:g}")
    return value


def parse_uid(cell: str) -> str:
    if re.fullmatch(r"\d+([.,]\d+)?[eE]\+?\d+", cell):
        raise ValueError("was turned into a number by a spreadsheet; format the column as text")
    if not re.fullmatch(r"[0-9]+(\.[0-9]+)+", cell) or len(cell) > 64:
        raise ValueError("is not a DICOM UID")
    return cell


def parse_identity(cell: str) -> str:
    if re.fullmatch(r"\d+([.,]\d+)?[eE]\+\d+|\d+[.,]0+", cell):
        raise ValueError("was turned into a number by a spreadsheet; format the column as text")
    if len(cell) > 64 or not cell.isprintable() or "\ufffd" in cell:
        raise ValueError("is not a patient id (longer than 64 characters, or characters that cannot be read)")
    return cell
