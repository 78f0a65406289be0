from __future__ import annotations

from datetime import date

import pytest

from tasks.annotate import cells, clinical, imports

HEADER = "patient_id,study_instance_uid,visit_date,side,reader,arco,jic,collapse_mm,lesion"


@pytest.mark.parametrize(
    "written",
    [
        "2021-03-04",
        "20210304",
        "2021/03/04",
        "04.03.2021",
        "4.3.2021",
        "4-Mar-2021",
        "2021-03-04 00:00:00",
        "44259",
        "44259,41667",
        "44259.0",
        "March 4, 2021",
        "4. März 2021",
        "Mar-4-2021",
        "04.03.2021 9:15",
        "2021-03-04T09:15:00Z",
        "04.03.2021 09:15:30 AM",
        "04. 03. 2021",
    ],
)
def test_dates_that_are_clear(written: str) -> None:
    assert cells.parse_date(written) == date(2021, 3, 4)


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("03/04/2021", "day/month or month/day"),
        ("04.03.21", "not a date"),
        ("2021-02-30", "not a day of the calendar"),
        ("2121-02-03", "in the future"),
        ("1821-02-03", "before 1950"),
        ("soon", "not a date"),
        ("45/45/21", "not a day of the calendar"),
        ("03-04-21", "not a date"),
        ("4 Foo 2021", "not a date"),
    ],
)
def test_dates_that_are_not(written: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        cells.parse_date(written)


def test_one_clear_date_with_slashes_tells_for_its_column() -> None:
    order = cells.date_order(["03/04/2021", "25/04/2021"])
    assert cells.parse_date("03/04/2021", order) == date(2021, 4, 3)
    assert cells.date_order(["03/04/2021", "04/25/2021"]) == "mdy"
    assert cells.date_order(["03.04.21", "31.12.20"]) == "dmy"  # 2031 is to come, 1931 long gone
    assert cells.parse_date("03.04.21", "dmy") == date(2021, 4, 3) == cells.parse_date("21-04-03", "ymd")
    assert cells.parse_date("31.12.87") == date(1987, 12, 31) and cells.parse_date("4/25/21") == date(2021, 4, 25)
    assert cells.date_order(["03.04.21", "04.05.22"]) is None
    mixed = cells.date_order(["25/04/2021", "04/25/2021"])
    with pytest.raises(ValueError, match="day/month"):
        cells.parse_date("03/04/2021", mixed)


@pytest.mark.parametrize(
    ("name", "written", "meant"),
    [("arco", "3a", "3A"), ("arco", "IIIb", "3B"), ("arco", "stage 2", "2"), ("arco", "1.0", "1"), ("arco", "IV", "4"),
     ("jic", "c1", "C1"), ("jic", "Type B", "B"), ("ficat", "III", "3"), ("steinberg", "II C", "2C"),
     ("lesion", "yes", "1")],
)  # fmt: skip
def test_stages_that_are_clear(name: str, written: str, meant: str) -> None:
    assert cells.parse_label(name, written) == meant


@pytest.mark.parametrize(
    ("name", "written", "reason"),
    [
        ("arco", "3", "needs its substage"),
        ("arco", "5", "not one of"),
        ("jic", "C", "needs its substage"),
        ("lesion", "2", "not one of"),
    ],
)
def test_stages_that_are_not(name: str, written: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        cells.parse_label(name, written)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1", "utf-16"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_encodings_and_delimiters(encoding: str, delimiter: str) -> None:
    rows = [
        ["Patient ID", "visit-date", "SIDE", "reader", "collapse_mm"],
        ["7", "2021-03-04", "left", "Müller", '"1.5"'],
    ]
    text = "\r\n".join(delimiter.join(row) for row in rows) + "\r\n\r\n"
    good, refused, notes = clinical.read("labels", text.encode(encoding), "labels.csv")
    assert not refused and not notes
    (number, row), *rest = good
    assert (number, row.reader, row.side, row.labels()) == (2, "Müller", "L", {"collapse_mm": "1.5"}) and not rest


def test_decimal_commas_where_cells_are_split_at_semicolons() -> None:
    text = "sep=;\npatient_id;visit_date;side;reader;collapse_mm\n7;04.03.2021;R;A;1,5\n"
    good, refused, _ = clinical.read("labels", text.encode(), "labels.csv")
    assert not refused
    assert good[0][0] == 3 and good[0][1].labels() == {"collapse_mm": "1.5"}


def test_zeros_that_people_keep_from_a_spreadsheet() -> None:
    text = 'patient_id|side|date|treatment\n"=""0815"""|L|2021-03-04|observation\n'
    good, refused, _ = clinical.read("treatments", text.encode(), "treatments.csv")
    assert good[0][1].patient_id == "0815" and not refused


def test_a_refusal_names_row_column_and_reason_and_nothing_else() -> None:
    text = "\n".join(
        [
            HEADER,
            "Smith^John,1.2.3,,L,A,5,,,",
            "7,,03/04/2021,X,A,2,,,",
            "7,1.2.4,,L,,2,,99,",
            "1.2E+11,1.2.5,,L,A,2,,,",
            "8,1.2.6,,L,A,,B,,0",
            "8,,,L,A,2,,,",
            "8,1.2.7,,L,A,,,,",
            "8,1.2.8,,L,A,2,,1,5,1",
            "8,1.2.9,,L,A,1,,6.5,",
        ]
    )
    good, refused, _ = clinical.read("labels", text.encode(), "labels.csv")
    said = [str(refusal) for refusal in refused]
    assert not good
    assert said == [
        "labels.csv row 2, column arco: is not one of 1, 2, 3A, 3B, 4",
        "labels.csv row 3, column visit_date: may be day/month or month/day; write the year first (2026-01-31)",
        "labels.csv row 3, column side: is not L or R",
        "labels.csv row 4, column reader: is empty",
        "labels.csv row 4, column collapse_mm: lies outside 0 to 30",
        "labels.csv row 5, column patient_id: was turned into a number by a spreadsheet; format the column as text",
        "labels.csv row 6: contradicts itself: lesion 0 with an ARCO stage or a JIC type",
        "labels.csv row 7: names no visit: give study_instance_uid or visit_date",
        "labels.csv row 8: holds no label",
        "labels.csv row 9: has more cells than the header has columns",
        "labels.csv row 10: contradicts itself: ARCO 1 or 2 with a collapse of more than 4 mm",
    ]
    assert "Smith" not in " ".join(said)


def test_a_reader_who_gives_two_values_for_one_hip_is_refused_and_a_repeated_row_is_not() -> None:
    text = f"{HEADER}\n7,1.2.3,,L,A,2,,,\n7,1.2.3,,L,A,2,,,\n7,1.2.3,,L,a,3A,,,\n7,1.2.3,,L,B,3A,,,\n"
    good, refused, notes = clinical.read("labels", text.encode(), "labels.csv")
    assert [number for number, _ in good] == [2, 5]
    assert [refusal.row for refusal in refused] == [4] and "as row 2" in refused[0].reason
    assert notes == ["labels.csv row 3: repeats row 2 and was left out"]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "holds no header row"),
        (b"a\0b", "zero bytes"),
        (b"patient_id,side,Side\n1,L,R\n", "column 3 has the name of an earlier column"),
        (b"patient_id,date,treatment\n1,2021-01-01,observation\n", "column side: is not in the header row"),
    ],
)
def test_files_that_are_no_tables(data: bytes, reason: str) -> None:
    good, refused, _ = clinical.read("treatments", data, "treatments.csv")
    assert not good and reason in str(refused[0])


def test_words_of_treatments_and_events() -> None:
    text = "patient_id;side;date;treatment\n7;R;2021-03-04;Core Decompression\n7;R;2021-03-04;surgery\n"
    good, refused, _ = clinical.read("treatments", text.encode(), "treatments.csv")
    assert good[0][1].treatment == "core_decompression"
    assert "is not one of: observation" in str(refused[0]) and refused[0].row == 3


def test_nothing_is_half_imported(hospital) -> None:  # type: ignore[no-untyped-def]
    hospital.csv("labels", f"{HEADER}\n7,1.2.3,,L,A,2,,,\n8,1.2.3,,L,A,9,,,\n")
    hospital.csv("treatments", "patient_id,side,date,treatment\n7,L,2021-01-01,observation\n")
    summary = hospital.annotate()
    assert summary.counts["labels"] == 0 and summary.counts["treatments"] == 1 and not summary.ok
    assert [str(r) for r in summary.refused] == ["labels.csv row 3, column arco: is not one of 1, 2, 3A, 3B, 4"]
    summary = hospital.annotate(partial=True)
    assert summary.counts["labels"] == 1 and summary.path is not None
    assert len(imports.rows(summary.path, "labels")) == 1


@pytest.mark.parametrize("cell", ["1.2E+11", "1,2e+09", "815.0", "815,00"])
def test_an_id_that_a_spreadsheet_made_a_number_is_refused(cell: str) -> None:
    with pytest.raises(ValueError, match="turned into a number"):
        cells.parse_identity(cell)
    assert cells.parse_identity("0815") == "0815" and cells.parse_identity("4.7") == "4.7"
