"""`python -m tasks.anonymize.conformance`: docs/conformance.md, written from the tables that the code runs on.

In the spirit of PS3.2 Annex N.11: which profile and options, what happens to each attribute, what is released at all,
and what remains. The rows come from `policy.Policy.operation`, the function that decides about every element of every
file, asked about each row of Table E.1-1 under the parameters of params.yaml.
"""

from __future__ import annotations

import csv
import sys
from collections import Counter
from pathlib import Path

from tasks.anonymize import policy, safe_private
from tasks.anonymize.marks import PIXELS, codes
from tasks.anonymize.params import Params
from tasks.anonymize.release import REFUSED
from tasks.domain.params import load
from tasks.keys import SHIFT_DAYS
from tasks.store.files import write_text

OUT = Path("docs/conformance.md")

WORDS = {
    policy.KEEP: "kept",
    policy.DROP: "removed",
    policy.EMPTY: "emptied",
    policy.DUMMY: "dummy value",
    policy.UID: "keyed UID",
    policy.KEPT_UID: "kept",
    policy.SUBJECT: "subject pseudonym",
    policy.DATE: "moved by the patient's shift",
    policy.TIME: "kept when it is a time",
    policy.AGE: "kept, capped",
    policy.TEXT: "cut down to the vocabulary of imaging",
    policy.TECHNICAL: "kept while it looks machine-made",
    policy.CODE: "kept when its scheme is the standard's",
    policy.WORD: "kept when it is a known term",
    policy.NUMBER: "kept when it is a number",
    policy.SEQUENCE: "kept, cleaned within",
    policy.CREATOR: "kept when known to be safe",
}

FATES = """| File meta (group 0002), preamble | written anew; 128 zero bytes |
| Group lengths, unknown even-group elements, retired groups | removed |
| Private elements | removed, except those of rules/safe_private.csv, creator and VR checked |
| Overlays (60xx), curves (50xx), icons, digital signatures, colour profiles, trailing padding | removed |
| Bytes behind the last pixel of native pixel data, elements after the pixel data | removed |
| Pixel data | byte for byte as received, but for what Clean Pixel Data blanks (below); deflated comes out inflated |
| Overlays in unused bits of the pixel data | cleared |
| Comments, EXIF and application segments in JPEG, JPEG-LS and JPEG 2000 streams | removed |
| Coordinates, codes and numbers of structured reports and presentation states | kept, where these are released |
| AE, UR, UN, OB and OW outside pixel data and look-up tables | removed |
| Coded items of a scheme that is not the standard's | removed |
| File names | `<study>/<series>/<sop>.dcm`, keyed UIDs; all times fixed at 1980-01-01 |"""

REMAINS = """- Text in pictures that were not searched (see Clean Pixel Data), text that neither detector sees (soft,
  under 6 pixels high, or hand-written), and single letters, such as side marks.
- Faces and other recognizable features: nothing here takes them off.
- Times of day stay, and days between a patient's dates stay. Who knows the true date of one visit of a patient in
  this data knows all of that patient's dates.
- The time of a batch: the lineage of a dataset run is dated, and a study became part of the data some time before.
- Manufacturer, model, software version, coil and sequence names stay word for word while they look machine-made.
- The words of imaging stay in descriptions: "HIP", "LEFT", "POST". A patient whose name is such a word has it removed
  from free text, not from coded terms."""


def statement(params: Params) -> str:
    """The conformance statement as Markdown."""
    decisions = policy.policy_for("mr-image", params)
    lines = [
        "# De-identification conformance statement",
        "",
        "Written by `python -m tasks.anonymize.conformance` from the tables that the code runs on; do not edit.",
        "Research use only, not for diagnosis.",
        "",
        f"Standard: {policy.EDITION}, Annex E, Table E.1-1. Profile and options, as written into every released file",
        "(De-identification Method Code Sequence):",
        "",
        *(f"- {code} {meaning}" for code, meaning in codes(params)),
        *(["- 113101 Clean Pixel Data Option, where the pixels were searched"] if params.clean_pixel_data else []),
        "",
        "On top of the table stands an allow-list: an element that no rule and no module of its object's IOD names is",
        "removed, and what stays is checked by its value representation.",
        "",
        "## Keys",
        "",
        "Pseudonyms (`OF` and 16 base32 characters for a patient of a site), UIDs (`2.25.` and 128 bits) and date",
        f"shifts ({SHIFT_DAYS[0]} to {SHIFT_DAYS[1]} days into the past, whole days, never zero, one for each patient)",
        "are HMAC-SHA-256 under sub-keys of one project key. The same key gives the same answers on every machine.",
        "Rotation rewraps the secrets and keeps the pseudonyms. The crosswalk is AES-256-GCM, in the identified zone;",
        "looking into it needs the key and a reason, which is logged.",
        "",
        "## Objects",
        "",
        "| family of SOP classes | fate |",
        "|---|---|",
        *_families(params),
        "",
        "## What is in a file, and its fate",
        "",
        "| what | fate |",
        "|---|---|",
        FATES,
        "",
        "## Clean Pixel Data",
        "",
        *_pixels(params),
        "",
        "## Verification",
        "",
        "Code of its own re-reads every file before it is released, looks for the identifiers of its source (names,",
        "their parts, ids, addresses, phones, dates, UIDs; nested and private ones too) and for what is forbidden",
        "above. A file that fails is not released, and holds back its study (`verification_failed`).",
        "`osteoflow verify --privacy` reads every archive ever released by the rules of today; what breaks them is",
        "removed from the workspace, DVC's cache and its remotes, and released again as a new version, or withdrawn.",
        "",
        "## What remains",
        "",
        REMAINS,
        "",
        f"## Safe private elements ({sum(len(block) for block in safe_private.table().values())})",
        "",
        "| creator | element | VR | name |",
        "|---|---|---|---|",
        *_private(),
        "",
        "## Table E.1-1 as it is carried out (MR Image, top level)",
        "",
        *_rows(decisions),
        "",
    ]
    return "\n".join(lines)


def _pixels(params: Params) -> list[str]:
    heads = "refused (`recognizable_features`)" if params.clean_recognizable_visual_features else "released as they are"
    about_heads = (
        f"Clean Recognizable Visual Features is not offered (113102 is never written); pictures of heads are {heads}."
    )
    if not params.clean_pixel_data:
        return [
            "Off: files marked Burned In Annotation = YES are quarantined (`burned_in_annotation`).",
            "",
            about_heads,
        ]
    return [
        f"Searched: of each series one picture in {params.text_every}, the first to begin with (`osteoflow anonymize`:",
        "of each 32 files in the order of their paths), all pictures of a series once text is found in one, and those",
        "that its attributes mark (Burned In Annotation, screens, secondary captures) or that often have text (colour,",
        "DERIVED\\SECONDARY, ultrasound and the like). Found: lines of letters in one value in any script, other lines",
        "when OCR reads words in them (tesseract, in the scripts whose languages are installed beside it). Blanked in",
        "all frames, then searched again by OCR over the whole picture; what does not come clean is quarantined",
        "(`burned_in_text`), as is a marked picture in which none is found (`burned_in_annotation`), that cannot be",
        "decoded (`undecodable_pixels`), or for which no",
        "OCR is installed (`no_text_engine`) or OCR fails (`text_engine_failed`). Compressed and YBR pictures come out",
        "native, YBR as RGB.",
        "",
        "Each file says what was done with its own pixels: the second value of De-identification Method is one of",
        f"{', '.join(f'`{said}`' for said in PIXELS.values())}.",
        "113101 and Burned In Annotation = NO are written only where they were searched with OCR.",
        "",
        about_heads,
    ]


def _families(params: Params) -> list[str]:
    fates = dict(REFUSED)
    if params.secondary_captures == "release":
        fates.pop("secondary_capture")
    if params.clean_structured_content:
        fates.pop("structured_report")
    if params.clean_graphics:
        fates.pop("presentation_state")
    families = sorted({family for _, family in policy.known_kinds().values()})
    counts = Counter(family for _, family in policy.known_kinds().values())
    said = [(family, f"refused (`{fates[family]}`)" if family in fates else "released") for family in families]
    lines = [f"| {family.replace('_', ' ')} ({counts[family]}) | {fate} |" for family, fate in said]
    return [*lines, "| any other, private SOP classes | refused (`unknown_sop_class`) |"]


def _private() -> list[str]:
    with open(policy.RULES / "safe_private.csv", encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    return [f"| {row['creator']} | ({row['group']},xx{row['element']}) | {row['vr']} | {row['name']} |" for row in rows]


def _rows(decisions: policy.Policy) -> list[str]:
    lines = ["| tag | attribute | basic | here |", "|---|---|---|---|"]
    with open(policy.RULES / "e1_1.csv", encoding="utf-8", newline="") as handle:
        for row in csv.DictReader(handle):
            text = row["tag"]
            if len(text) == 8 and all(letter in "0123456789ABCDEF" for letter in text):
                tag = int(text, 16)
                here = "written anew" if tag >> 16 == 2 else WORDS[decisions.operation(tag, "", False)]
            else:
                here = WORDS[policy.CREATOR if decisions.params.retain_safe_private else policy.DROP]
                here = here if "PRIVATE" in text.upper() else WORDS[policy.DROP]
            lines.append(f"| {text} | {row['name']} | {row['basic']} | {here} |")
    return lines


def main() -> None:
    write_text(OUT, statement(load("anonymize", Params)))
    print(f"wrote {OUT}", file=sys.stderr)


if __name__ == "__main__":
    main()
