"""Clean Descriptors: free text is cut down to the vocabulary of imaging; everything else goes.

An allow-list, so that a name nobody listed, a third party, an address, a number or a date cannot stay. Words come
from rules/vocabulary.json; a few patterns ("3D", "4mm", "1.5T", "TE30", "b1000") are allowed beside them. Words that
are also surnames ("Head", "Post") go when they stand beside something that went or after a title ("Dr. Head"), and
the words of the patient's own names go always.
"""

from __future__ import annotations

import itertools
import json
import re
from functools import cache
from pathlib import Path

_TOKEN = re.compile(r"\d{1,3}[.,]\d{1,2}(?=(?:mm|cm|ms|t|deg|sec|min)\b)(?:[a-z]+)|[^\W_]+", re.IGNORECASE)
_PATTERN = re.compile(
    r"[234]d|\d{1,3}(?:[.,]\d{1,2})?(?:mm|cm|ms|t|deg|sec|min)|te\d{1,3}|t[ri](?:\d{1,4}|1\d[05]00)|"
    r"fa\d{1,3}|b(?:0|[1-9]?50|[1-9]\d?00)|p[2-6]"
)
_NUMBERED = re.compile(r"([a-z]{3,})\d{1,2}")
_SEPARATOR = re.compile(r"[ _\-/.,:;+*&()]{1,3}")
_TITLE = re.compile(
    r"dr|drs|doctor|doktor|prof|professor|mrs|miss|herr|frau|hr|fr|mme|mlle|sig|signora|dott|dra|sra|don|dona|pan|pani|"
    r"name|named|patient|pt|physician|arzt|radiologist|surgeon|operator|op|tech|technologist|referred|nurse|mother|"
    r"father|wife|husband|son|daughter|street|st|strasse|straße|rue|via|calle|avenue|ave|road|rd|lane|ln|city"
)
_BY = re.compile(r"by|per|from|signed|sgd|ordered|requested|reported|seen|called|told|attn|cc|von|durch|par|por")
_STREET = re.compile(r"street|st|strasse|straße|avenue|ave|road|rd|lane|ln|drive|place|court|square")
_POINTING = re.compile(r"\b[A-Z]\.|, ?[A-Z]\b|\b(?:by|per|from|signed|von)\b|\bM[rs]\b|\bSr\b", re.IGNORECASE)
"""What may point at a person where every word is known."""
_PAIRS = frozenset({("dixon", "water"), ("dixon", "fat"), ("black", "blood"), ("dark", "blood"), ("bone", "marrow")})
"""Two words that are names apart, and nobody's together."""
_EXACT_TITLE = frozenset({"Mr", "Ms", "Sr", "M"})


@cache
def _load() -> tuple[frozenset[str], frozenset[str]]:
    topics = json.loads((Path(__file__).parent / "rules" / "vocabulary.json").read_text(encoding="utf-8"))
    surnames = frozenset(topics.pop("also surnames").split())
    return frozenset(word for words in topics.values() for word in words.split()), surnames


def known(token: str) -> bool:
    """Is this one word of imaging (case does not count)?"""
    folded = token.casefold()
    if folded in _load()[0] or _PATTERN.fullmatch(folded):
        return True
    numbered = _NUMBERED.fullmatch(folded)
    return numbered is not None and numbered[1] in _load()[0]


def clean(text: str, own: frozenset[str] = frozenset()) -> str:
    """`text` with only the words that may stay; `own` are casefolded words of this patient's names and ids."""
    found = [(match.group(), match.start(), match.end()) for match in _TOKEN.finditer(text)]
    keep = [known(token) and token.casefold() not in own for token, _, _ in found]
    if not all(keep) or _POINTING.search(text):
        _without_people(text, found, keep)
    pieces: list[str] = []
    last = -1
    for index, (token, start, _) in enumerate(found):
        if not keep[index]:
            continue
        if pieces:
            between = text[found[index - 1][2] : start]
            direct = last == index - 1 and _SEPARATOR.fullmatch(between) is not None
            pieces.append(between if direct else " ")
        pieces.append(token)
        last = index
    return "".join(pieces)


def _without_people(text: str, found: list[tuple[str, int, int]], keep: list[bool]) -> None:
    """Take out known words that are somebody's name here, by what stands beside them."""
    surnames = _load()[1]
    folded_words = [token.casefold() for token, _, _ in found]
    pairs = {n + k for n, pair in enumerate(itertools.pairwise(folded_words)) if pair in _PAIRS for k in (0, 1)}

    def may_name(index: int) -> bool:
        return 0 <= index < len(found) and found[index][0].casefold() in surnames and index not in pairs

    def follows(index: int) -> str:
        return text[found[index][2] : found[index + 1][1] if index + 1 < len(found) else len(text)]

    for index, (token, _, end) in enumerate(found):
        folded = token.casefold()
        title = (_TITLE.fullmatch(folded) and not keep[index]) or _is_exact_title(token, text[end : end + 1])
        if title:
            keep[index] = False
        for after in range(index + 1, min(index + 3, len(found))):
            if (may_name(after) and (title or _BY.fullmatch(folded))) or (title and found[after][0].istitle()):
                keep[after] = False
        if _STREET.fullmatch(folded) and not keep[index]:
            for before in (index - 1, index - 2):
                keep[before] = keep[before] and not may_name(before) if before >= 0 else keep[before]
        following = index + 1 < len(found)
        named = following and (may_name(index + 1) or not keep[index + 1])
        if len(token) == 1 and token.isupper() and follows(index).startswith(".") and named:  # "A. Wide"
            keep[index] = False
            keep[index + 1] = keep[index + 1] and not may_name(index + 1)
        letter = following and len(found[index + 1][0]) == 1 and not follows(index + 1).strip(". ")
        if may_name(index) and follows(index).startswith(",") and letter:  # "Wide, A"
            keep[index] = keep[index + 1] = False
    for step in (1, -1):
        # "Grant Small Abendroth": what went takes the possible names beside it along, both ways.
        order = range(len(found)) if step == 1 else range(len(found) - 1, -1, -1)
        for index in order:
            token = found[index][0]
            beside = [n for n in (index - 1, index + 1) if 0 <= n < len(found)]
            gone = [found[n][0] for n in beside if not keep[n] and found[n][0].isalpha()]
            people = [word for word in gone if not known(word) or word.istitle() == token.istitle()]
            short = len(token) == 2 and token.isalpha() and token.istitle() and any(map(str.istitle, gone))  # "Wang Te"
            initial = len(token) == 1 and token.isupper() and follows(index).startswith(".") and gone
            if (may_name(index) and people) or short or initial:
                keep[index] = False


def _is_exact_title(token: str, following: str) -> bool:
    """'Mr' and 'Ms' are titles in this spelling alone: 'MR' is a modality and 'ms' a unit."""
    return token in _EXACT_TITLE and (token != "M" or following == ".")


def defined_term(value: str) -> bool:
    """May this value of a CS element stay? Every word of it must be known, or too short to be a name."""
    digits = sum(letter.isdigit() for letter in value)
    return all(known(token) or (len(token) <= 2 and digits <= 4) for token in _TOKEN.findall(value))
