"""Invented people and places, and the register of every string that must not leave the identified zone."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field

import numpy as np

_ONSETS = tuple("bdfghklmnprstvwz") + ("br", "dr", "fl", "gr", "kl", "pr", "sk", "tr")
_VOWELS = (*"aeiou", "au", "ei", "ia")
_CODAS = (*"lmnrsx", "th", "nd", "lk", "rt")
_ENDINGS = ("wick", "dahl", "mont", "berg", "stad", "holm", "quist", "rovan", "ellis", "orsk")


def _whole(text: str) -> str:
    """A name as it is used. Here it stands in two parts: with no invented name in the source, a search for leaked
    names finds none where there is no leak."""
    return text.replace("|", "")


def _all(*texts: str) -> tuple[str, ...]:
    return tuple(map(_whole, texts))


_HAN = _all("霧|島坂", "雲|井沢", "楓|谷原", "澄|崎野", "暁|月辺", "蒼|羽根")
_HAN_GIVEN = _all("楓|仁朗", "澪|里花", "颯|真斗", "紗|雪乃", "蓮|華羽")
_KANA = _all("きりし|まざか", "くも|いざわ", "かえで|やはら", "すみ|さきの", "あか|つきべ", "あお|ばねの")
_KANA_GIVEN = _all("ふう|じろう", "みお|りか", "そう|まと", "さゆ|きの", "れん|げは")
REFERRER_PHONE = _whole("+49 800 |5550199")
_REFERRER = _whole("Radiologie Haus |Eichenblick")
_STREETS = _all("Quarz|steig", "Lindwu|rmgasse", "Moorhu|hnallee", "Silberd|istelweg", "Nebelkra|ehenplatz")
_CITIES = _all("Oberfe|lsingen", "Nordque|llstadt", "Wintermo|orhausen", "Kranic|hsbruck")
_HOSPITALS = _all("Quellbrunn Orth|opaedic Hospital", "Felsenmeer Ge|neral Hospital", "Birkensee J|oint Clinic")


def _syllables(rng: np.random.Generator, n: int) -> str:
    parts = [str(rng.choice(_ONSETS)) + str(rng.choice(_VOWELS)) for _ in range(n)]
    return "".join(parts) + str(rng.choice(_CODAS))


def family_name(rng: np.random.Generator) -> str:
    """At least eight letters, so that it cannot turn up by chance."""
    return (_syllables(rng, 2) + str(rng.choice(_ENDINGS))).capitalize().ljust(8, "o")


def given_name(rng: np.random.Generator) -> str:
    return _syllables(rng, 3).capitalize().ljust(7, "a")


@dataclass
class Register:
    """kind -> strings planted. `tokens` holds digits-only strings, to be looked for as whole words."""

    strings: dict[str, set[str]] = field(default_factory=dict)
    tokens: dict[str, set[str]] = field(default_factory=dict)

    def add(self, kind: str, *values: str) -> None:
        for value in values:
            if value:
                (self.tokens if value.isdigit() else self.strings).setdefault(kind, set()).add(value)

    def merge(self, other: dict[str, dict[str, list[str]]]) -> None:
        for kind, values in {**other["strings"]}.items():
            self.strings.setdefault(kind, set()).update(values)
        for kind, values in other["tokens"].items():
            self.tokens.setdefault(kind, set()).update(values)

    def as_dict(self) -> dict[str, dict[str, list[str]]]:
        return {
            "strings": {kind: sorted(values) for kind, values in sorted(self.strings.items())},
            "tokens": {kind: sorted(values) for kind, values in sorted(self.tokens.items())},
        }


@dataclass(frozen=True)
class Hospital:
    name: str
    address: str
    department: str
    stations: tuple[str, ...]
    serials: tuple[str, ...]
    readers: tuple[str, ...]
    physicians: tuple[str, ...]


@dataclass(frozen=True)
class Person:
    """A patient as the hospital knows them. `name` is the DICOM PN, `charset` the SpecificCharacterSet for it."""

    patient_id: str
    other_id: str
    name: str
    latin: tuple[str, str]
    charset: tuple[str, ...]
    birth_date: dt.date
    sex: str
    address: str
    phone: str
    mother: str
    insurance: str
    first_visit: dt.date


def hospital(site: str, seed: int) -> Hospital:
    rng = np.random.default_rng([seed, 30, *site.encode()])
    number = int(rng.integers(1, 99))
    address = f"{rng.choice(_STREETS)} {number}, {rng.integers(10000, 99999)} {rng.choice(_CITIES)}"
    readers = tuple(f"{given_name(rng).lower()}.{family_name(rng).lower()}" for _ in range(2))
    physicians = tuple(f"{family_name(rng)}^{given_name(rng)}^^Dr." for _ in range(6))
    stations = tuple(f"MRC{rng.integers(10000, 99999)}" for _ in range(3))
    serials = tuple(f"SN{rng.integers(100000, 999999)}" for _ in range(3))
    return Hospital(
        str(rng.choice(_HOSPITALS)),
        address,
        _REFERRER,
        stations,
        serials,
        readers,
        physicians,
    )


def person(site: str, seed: int, number: int, sex: str, age: float, first_day: int) -> Person:
    rng = np.random.default_rng([seed, 31, number, *site.encode()])
    family, given = family_name(rng), given_name(rng)
    style = rng.choice(["latin", "latin1", "japanese", "cyrillic", "utf8", "greek"], p=[0.5, 0.15, 0.1, 0.1, 0.1, 0.05])
    charset: tuple[str, ...] = ("ISO_IR 100",)
    name = f"{family}^{given}"
    if style == "latin1":
        name = f"{family}ström^{given}é"
    elif style in ("japanese", "utf8"):
        h, g = int(rng.integers(len(_HAN))), int(rng.integers(len(_HAN_GIVEN)))
        name = f"{family}^{given}={_HAN[h]}^{_HAN_GIVEN[g]}={_KANA[h]}^{_KANA_GIVEN[g]}"
        charset = ("", "ISO 2022 IR 87") if style == "japanese" else ("ISO_IR 192",)
    elif style == "cyrillic":
        name, charset = f"{_spell(family, _CYRILLIC)}^{_spell(given, _CYRILLIC)}", ("ISO_IR 144",)
    elif style == "greek":
        name, charset = f"{_spell(family, _GREEK)}^{_spell(given, _GREEK)}", ("ISO_IR 126",)
    first = dt.date(2018, 2, 1) + dt.timedelta(days=int(first_day))
    return Person(
        patient_id=f"MRN{rng.integers(1000, 9999)}-{number:04d}{chr(65 + int(rng.integers(26)))}",
        other_id=f"KH{rng.integers(10**7, 10**8)}",
        name=name,
        latin=(family, given),
        charset=charset,
        birth_date=first - dt.timedelta(days=int(age * 365.25) + int(rng.integers(0, 30))),
        sex=sex,
        address=f"{rng.choice(_STREETS)} {rng.integers(1, 120)}, {rng.integers(10000, 99999)} {rng.choice(_CITIES)}",
        phone=f"+49 {rng.integers(150, 180)} 555{rng.integers(10000, 99999)}",
        mother=family_name(rng),
        insurance=f"VK{rng.integers(10**8, 10**9)}",
        first_visit=first,
    )


_CYRILLIC = dict(zip("abcdefghiklmnopqrstuvwxyz", "абцдефгхиклмнопкрстувшыйз", strict=False))
_GREEK = dict(zip("abcdefghiklmnopqrstuvwxyz", "αβκδεφγηικλμνοπκρστυβωξυζ", strict=False))


def _spell(latin: str, letters: dict[str, str]) -> str:
    return "".join(letters.get(letter, "") for letter in latin.lower()).capitalize()


def plant(register: Register, who: Person, where: Hospital) -> None:
    """Everything about a person and a place that no released file may hold."""
    for group in who.name.split("="):
        register.add("names", *group.split("^"))
    register.add("names", *who.latin, *(part.upper() for part in who.latin), who.mother)
    register.add("ids", who.patient_id, who.other_id, who.insurance)
    register.add("birth_dates", who.birth_date.strftime("%Y%m%d"), who.birth_date.isoformat())
    register.add("contact", who.address, who.phone, REFERRER_PHONE)
    register.add("places", where.name, where.address, where.department, *where.stations, *where.serials)
    for physician in where.physicians:
        register.add("staff", *physician.split("^")[:2])
    register.add("staff", *where.readers)
