"""Clean Descriptors: free text is cut down to the vocabulary of imaging; everything else goes.

An allow-list, so that a name nobody listed, a third party, an address, a number or a date cannot stay. Words come
from rules/vocabulary.json; a few patterns ("3D", "4mm", "1.5T", "TE30", "b1000") are allowed beside them. Words that
are also surnames ("Head", "Post") go when they stand beside something that went or after a title ("Dr. Head"), and
the words of the patient's own names go always.
"""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path

_TOKEN = re.compile(r"\d{1,3}[.,]\d{1,2}(?=(?:mm|cm|ms|t|deg|sec|min)\b)(?:[a-z]+)|[^\W_]+", re.IGNORECASE)
_PATTERN = re.compile(
    r"[234]d|\d{1,3}(?:[.,]\d{1,2})?(?:mm|cm|ms|t|deg|sec|min)|(?:te|tr|ti)\d{1,5}|fa\d{1,3}|b(?:0|\d{1,2}[05]0|50)|p[2-6]"
)
_NUMBERED = re.compile(r"([a-z]{3,})\d{1,2}")
_SEPARATOR = re.compile(r"[ _\-/.,:;+*&()]{1,3}")
_TITLE = re.compile(
    r"dr|drs|doctor|doktor|prof|professor|mrs|miss|herr|frau|hr|fr|mme|mlle|sig|signora|dott|dra|sra|don|dona|pan|pani|"
    r"name|named|patient|pt|physician|arzt|radiologist|surgeon|operator|op|tech|technologist|referred|nurse|mother|"
    r"father|wife|husband|son|daughter|street|st|strasse|straße|rue|via|calle|avenue|ave|road|rd|lane|ln|city"
)
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
    surnames = _load()[1]
    for index, (token, _, end) in enumerate(found):
        if (_TITLE.fullmatch(token.casefold()) and not keep[index]) or _is_exact_title(token, text[end : end + 1]):
            keep[index] = False
            for after in range(index + 1, min(index + 3, len(found))):
                if found[after][0].casefold() in surnames or found[after][0].istitle():
                    keep[after] = False
    for index, (token, _, _) in enumerate(found):
        near = [n for n in (index - 1, index + 1) if 0 <= n < len(found)]
        if token.casefold() in surnames and any(not keep[n] and found[n][0].isalpha() for n in near):
            keep[index] = False
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


def _is_exact_title(token: str, following: str) -> bool:
    """'Mr' and 'Ms' are titles in this spelling alone: 'MR' is a modality and 'ms' a unit."""
    return token in _EXACT_TITLE and (token != "M" or following == ".")


def defined_term(value: str) -> bool:
    """May this value of a CS element stay? Every word of it must be known, or too short to be a name."""
    digits = sum(letter.isdigit() for letter in value)
    return all(known(token) or (len(token) <= 2 and digits <= 4) for token in _TOKEN.findall(value))
