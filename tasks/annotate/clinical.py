"""The design's clinical tables as row models: which row and column is wrong, in words, before anything is kept."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    create_model,
    model_validator,
)

from tasks.annotate import cells
from tasks.domain.disease import EVENTS, LABELS, MASK_LABELS, MEASURED_LABELS, TREATMENTS
from tasks.domain.errors import BadInput
from tasks.domain.staging import arco_3, convert

COLLAPSED_MM = 4.0
"""No reading error makes this of a head that is not collapsed: twice the 2 mm between ARCO 3A and 3B."""


@dataclass(frozen=True)
class Refusal:
    """One thing that was not taken. `where` is a table's name or 'file N' of the sorted list of SRC; never PHI."""

    where: str
    row: int | None
    column: str
    reason: str

    def __str__(self) -> str:
        row = f" row {self.row}" if self.row else ""
        column = f", column {self.column}" if self.column else ""
        return f"{self.where}{row}{column}: {self.reason}"


def _text(cell: Any, info: ValidationInfo) -> str:
    return str(cell or "").strip()


def _date(cell: Any, info: ValidationInfo) -> date:
    return cells.parse_date(cell, ((info.context or {}).get("orders") or {}).get(info.field_name))


def _word(cell: str) -> str:
    return cell.lower().replace(" ", "_").replace("-", "_")


def _label(cell: str, info: ValidationInfo) -> str:
    return cells.parse_label(str(info.field_name), cell)


def _measured(cell: str, info: ValidationInfo) -> float:
    return cells.parse_number(cell, *MEASURED_LABELS[str(info.field_name)])


Date = Annotated[date, BeforeValidator(_date)]
Side = Annotated[str, BeforeValidator(cells.parse_side)]
Identity = Annotated[str, BeforeValidator(cells.parse_identity)]
Uid = Annotated[str, BeforeValidator(cells.parse_uid)]
Reader = Annotated[str, Field(min_length=1, max_length=128)]
Label = Annotated[str, BeforeValidator(_label)]
Measured = Annotated[float, BeforeValidator(_measured)]


class Row(BaseModel):
    """Cells that are empty are left out before validation, so that an optional one is None."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    site: str | None = None


class _Labelled(Row):
    patient_id: Identity
    study_instance_uid: Uid | None = None
    visit_date: Date | None = None
    side: Side
    reader: Reader

    @model_validator(mode="before")
    @classmethod
    def _substage(cls, cells_of_row: Any) -> Any:
        """ARCO 3 says which it is by the collapse that stands beside it."""
        if isinstance(cells_of_row, dict) and cells_of_row.get("arco") and cells_of_row.get("collapse_mm"):
            try:
                depth = cells.parse_number(cells_of_row["collapse_mm"], *MEASURED_LABELS["collapse_mm"])
            except ValueError:
                return cells_of_row  # refused where its own column is read
            if cells.bare_stage(cells_of_row["arco"]) == "3":
                return cells_of_row | {"arco": arco_3(depth)}
        return cells_of_row

    @model_validator(mode="after")
    def _possible(self) -> _Labelled:
        if self.study_instance_uid is None and self.visit_date is None:
            raise ValueError("names no visit: give study_instance_uid or visit_date")
        given = self.labels()
        if not given:
            raise ValueError("holds no label")
        if given.get("lesion") == "0" and ("arco" in given or "jic" in given):
            raise ValueError("contradicts itself: lesion 0 with an ARCO stage or a JIC type")
        if given.get("arco") in ("1", "2") and float(given.get("collapse_mm", 0)) > COLLAPSED_MM:
            raise ValueError(f"contradicts itself: ARCO 1 or 2 with a collapse of more than {COLLAPSED_MM:g} mm")
        for system in ("ficat", "steinberg"):
            told = convert(given[system], system, "ficat") if system in given else None
            if told and "arco" in given and abs(int(told) - int(given["arco"][0])) > 1:
                raise ValueError(f"contradicts itself: an ARCO and a {system.capitalize()} stage that are far apart")
        return self

    def labels(self) -> dict[str, str]:
        """{name: value as text} of the labels that this row gives."""
        given = {name: getattr(self, name) for name in (*LABELS, *MEASURED_LABELS)}
        return {name: f"{value:g}" if isinstance(value, float) else value for name, value in given.items() if value}


_fields: dict[str, Any] = dict.fromkeys(LABELS, (Label | None, None))
_fields |= dict.fromkeys(MEASURED_LABELS, (Measured | None, None))
LabelRow = create_model("LabelRow", __base__=_Labelled, **_fields)


class _Event(Row):
    patient_id: Identity
    side: Side
    date: Date
    replaces: Date | None = None
    """The date that an earlier table gave: this row takes the place of what it said of that day."""
    status: Annotated[Literal["valid", "withdrawn"] | None, BeforeValidator(_word)] = None


class TreatmentRow(_Event):
    treatment: Annotated[Literal[TREATMENTS], BeforeValidator(_word)]  # type: ignore[valid-type]


class OutcomeRow(_Event):
    event: Annotated[Literal[EVENTS], BeforeValidator(_word)]  # type: ignore[valid-type]


class MergeRow(Row):
    patient_id: Identity
    same_site: str | None = None
    same_as: Identity


class ConsentRow(Row):
    patient_id: Identity
    status: Annotated[Literal["given", "withdrawn"], BeforeValidator(_word)]
    date: Date


class MaskRow(Row):
    file: str
    patient_id: Identity | None = None
    study_instance_uid: Uid
    series_instance_uid: Uid
    side: Side | None = None
    reader: Reader
    label: Annotated[Literal[MASK_LABELS], BeforeValidator(_word)]  # type: ignore[valid-type]
    value: Annotated[int | None, Field(ge=1, le=65535)] = None


TABLES: dict[str, type[Row]] = {
    "labels": LabelRow,
    "treatments": TreatmentRow,
    "outcomes": OutcomeRow,
    "merges": MergeRow,
    "consent": ConsentRow,
    "masks": MaskRow,
}
"""File stem -> its row model."""


def read(name: str, data: bytes, where: str) -> tuple[list[tuple[int, Row]], list[Refusal], list[str]]:
    """(row number, row) of each good row, the refusals, and notes, of table `name` as the hospital wrote it."""
    model = TABLES[name]
    try:
        columns, rows = cells.read_csv(data)
    except BadInput as error:
        return [], [Refusal(where, None, "", str(error))], []
    missing = [field for field, info in model.model_fields.items() if info.is_required() and field not in columns]
    if missing:
        return [], [Refusal(where, 1, ", ".join(missing), "is not in the header row")], []
    notes = []
    unknown = [str(n + 1) for n, column in enumerate(columns) if column and column not in model.model_fields]
    if unknown:
        notes.append(f"{where}: column {', '.join(unknown)} is not known and was left out")
    orders = {column: cells.date_order([row[column] for _, row in rows]) for column in columns if "date" in column}
    good: list[tuple[int, Row]] = []
    refused: list[Refusal] = []
    for number, row in rows:
        if "" in row:
            refused.append(Refusal(where, number, "", "has more cells than the header has columns"))
            continue
        try:
            given = {column: cell for column, cell in row.items() if cell}
            good.append((number, model.model_validate(given, context={"orders": orders})))
        except ValidationError as error:
            for fault in error.errors(include_input=False, include_url=False):
                column = ".".join(str(part) for part in fault["loc"])
                refused.append(Refusal(where, number, column, in_words(fault)))
    return _doubles(good, where, refused, notes), refused, notes


def _doubles(
    good: list[tuple[int, Row]], where: str, refused: list[Refusal], notes: list[str]
) -> list[tuple[int, Row]]:
    """Leave out rows that repeat an earlier one; refuse two rows of one reader, hip and visit that differ."""
    seen: dict[Any, tuple[int, Row]] = {}
    kept: list[tuple[int, Row]] = []
    for number, row in good:
        key: Any = row
        if isinstance(row, _Labelled):
            reader = row.reader.strip().casefold()  # one reader, as in the keys
            key = (row.site, row.patient_id, row.study_instance_uid, row.visit_date, row.side, reader)
        if key not in seen:
            seen[key] = number, row
            kept.append((number, row))
        elif seen[key][1] == row:
            notes.append(f"{where} row {number}: repeats row {seen[key][0]} and was left out")
        else:
            reason = f"same reader, hip and visit as row {seen[key][0]}, with other values; keep one of the two"
            refused.append(Refusal(where, number, "", reason))
    return kept


WORDS = {
    "missing": "is empty",
    "literal_error": "is not one of: {expected}",
    "int_parsing": "is not a whole number",
    "int_from_float": "is not a whole number",
    "greater_than_equal": "is less than {ge}",
    "less_than_equal": "is more than {le}",
    "string_too_short": "is empty",
    "string_too_long": "is longer than {max_length} characters",
}
"""What pydantic finds, as a data manager would say it. What is not here says what its own validator said."""


def in_words(fault: Any) -> str:
    """One entry of `ValidationError.errors`, without the cell: that may hold a name."""
    if fault["type"] in WORDS:
        return WORDS[fault["type"]].format(**fault.get("ctx", {})).replace("'", "")
    return str(fault["msg"]).removeprefix("Value error, ").removeprefix("Assertion failed, ")
