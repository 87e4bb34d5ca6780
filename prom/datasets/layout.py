"""What the names in a folder say: who is the patient, which contrast it is, whether it is a label. No file is opened."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from string import ascii_lowercase

from prom.errors import InputError

SPLIT_FOLDERS = {"train": "train", "training": "train", "validation": "validation", "val": "validation", "test": "test", "testing": "test"}
SPLIT_FOLDERS |= {f"{coils}coil_{name}": split for coils in ("single", "multi") for name, split in SPLIT_FOLDERS.items()}  # fastMRI
SIDES = SPLIT_FOLDERS | {"imagestr": "train", "labelstr": "train", "imagests": "test", "labelsts": "test"}
DIVIDED = set(SIDES)  # no rule divides what lies in these
IMAGE_FOLDERS = {
    *("imagestr", "imagests", "images", "image", "imgs", "raw", "data", "nifti", "nii", "dicom", "dicoms", "dcm"),
    *("anat", "func", "dwi", "mri", "mr"),
}
LABEL_FOLDERS = {"labelstr", "labelsts", "labels", "label", "masks", "seg", "segs", "segmentation", "segmentations", "annotations", "gt"}
LABEL_WORDS = {"seg", "gt", "label", "labels", "mask", "dseg", "segmentation", "annotation", "lesion", "roi"}
IMAGE_WORDS = {"image", "img", "recon", "reconstruction"}  # P1_image is the image of P1
PHASE_WORDS = {"phase", "pha", "ph", "phasediff"}
SENSITIVITY_WORDS = {"sens", "csm", "smaps", "sensmaps", "coilmaps", "sensitivity", "sensitivities"}
REAL, IMAGINARY = ("real", "re", "r"), ("imaginary", "imag", "im", "i")  # parts of complex numbers, in two files
# the longer words with anything before them, the shorter ones alone
PART_OF_COMPLEX = re.compile(r"(real|imaginary|imag|(?<![^-_. /])(?:re|im|[ri](?![a-z\d])))(?=(?:part)?\d*(?:[-_. /]|$))")
OTHER_LETTERS = set(ascii_lowercase) - set("riamp")  # than those of real, imaginary, amplitude, magnitude and phase
CONTRASTS = {
    *("t1", "t1w", "t1n", "t1c", "t1ce", "t1gd", "t1post", "t1wce", "t2", "t2w", "t2f", "t2star", "t2flair", "flair", "pd", "pdw", "pdfs"),
    *("dwi", "adc", "b0", "swi", "bold", "tof", "mra", "stir", "mag", "magnitude", "ax", "axial", "cor", "coronal", "sag", "sagittal"),
}
# Several of these belong to one patient: sessions, repetitions, echoes, parts of the heart's cycle.
PART = re.compile(
    r"(ses|session|visit|day|week|month|pre|post|bl|fu|baseline|followup|mr|mpr|sa|la|run|scan|acq|rec|echo|frame|phase|time|tp|timepoint|slice|sl|z|4d|ed|es|part|dir|copy|orig|anon|left|right|lh|rh)-?[a-z]?\d*",
    re.I,
)
PIECE = re.compile(r"(slice|sl|z|frame|echo|phase|time)[-_ ]?\d+", re.I)  # likewise, where it is all that a name says
OF_NAMES = ("file", "name", "case")  # what else than folders may say whose a file is
SESSION = re.compile(
    r"(ses|session|visit|day|week|month|baseline|followup|timepoint|tp|bl|fu|pre|post)[-_]?\d*|(19|20)\d\d[-_.]?\d\d[-_.]?\d\d", re.I
)
CHANNEL = re.compile(r"(.+)_(\d{4})")  # of nnU-Net: case_0000 is the first contrast of what labelsTr calls case


@dataclass(frozen=True)
class Name:
    """What the name of one file says.

    ``patient`` whose it is, ``contrast`` in lower case or "", ``label`` whether the name is that of a label, ``volume`` what an image and
    its label have in common, ``sure`` whether the patient's name means the same one wherever it occurs, ``unread`` why it is no image by
    itself, else "", ``parts`` the words for session, echo, frame and the like, ``side`` the split that its folders name, else "".
    """

    patient: str
    contrast: str
    label: bool
    volume: str
    sure: bool = True
    unread: str = ""
    parts: frozenset[str] = frozenset()
    side: str = ""


def names(files: Sequence[PurePath], stems: Sequence[str], how: str | None = None) -> list[Name]:
    """What the paths of all files of a folder, relative to it, say of each. ``stems``: their names without the extension.

    The patient is, in this order: ``sub-XX`` where BIDS names it; the folder whose name the file's name begins with (BraTS); the topmost
    folder, so that no folder is torn apart; else the file, without words for contrast, label, image, session, echo or frame at its end.
    Folders that say what lies in them (imagesTr, labelsTr, train, T1) are no patients. ``how`` settles it instead:
    "file", "case" (the file's name, the words at its end stripped), "name" (likewise, and where two names end in one number, all without),
    "folder" (the innermost), or the number of a folder on the path, from 1.

    Raises
    ------
    InputError
        Where folders hold files of the same names, or several names have the same numbers at their end, so that either could be the
        patient, or all patients would be sessions or dates, or numbered slices or frames that no folders train and test divide.

    >>> paths = ["imagesTr/la_1.nii", "labelsTr/la_1.nii", "sub-02/ses-1/anat/sub-02_ses-1_T1w.nii", "B1/B1_t1.nii", "B1/B1_seg.nii"]
    >>> found = names([PurePath(p) for p in paths], [PurePath(p).stem for p in paths])
    >>> [(name.patient, name.contrast, name.label) for name in found]
    [('la_1', '', False), ('la_1', '', True), ('sub-02', 't1w', False), ('B1', 't1', False), ('B1', '', True)]
    """
    channels = _channels(files, stems)
    words = _joined([_words(file, stem, channels) for file, stem in zip(files, stems, strict=True)])
    folders = [tuple(part for part in file.parts[:-1] if not says_what(part)) for file in files]
    if how is None:
        _refuse_unclear(files, folders, words)
        _refuse_numbered(files, folders, words)
        patients = [_patient(*facts) for facts in zip(files, folders, words, strict=True)]
        if len(set(patients)) > 1 and all(is_session(patient) for patient in patients):
            raise InputError(
                f"{', '.join(sorted(set(patients))[:3])}: are named as sessions, so that all may be of one patient; give patient=folder or "
                "patient=file where each is a patient, else leave the patient's own folder on the path and give patient=1"
            )
        divided = all(file.parts[0].lower() in DIVIDED for file in files)
        if len(set(patients)) > 1 and not divided and not any(folders) and all(PIECE.fullmatch(PurePath(one).stem) for one in patients):
            raise InputError(
                f"{', '.join(sorted(set(patients))[:3])}: are named as slices or frames, so that all may be of one patient; give "
                "patient=name where each is a patient, else put those of each patient into a folder"
            )
    else:
        numbered = _numbered(files, folders, words)
        patients = [_chosen_patient(file, word, how, numbered) for file, word in zip(files, words, strict=True)]
    whole = [file.with_name(stem).as_posix().lower() for file, stem in zip(files, stems, strict=True)]
    known = set(whole)
    return [
        Name(
            patient,
            word.contrast,
            word.label,
            "/".join((*folder, word.volume)),
            patient != (word.case or file.name),
            _unread(stem, _is_part(path, known)),
            word.parts | {part.lower() for part in file.parts[:-1] if is_session(part)},
            next((SIDES[part.lower()] for part in file.parts[:-1] if part.lower() in SIDES), ""),
        )
        for patient, folder, word, file, stem, path in zip(patients, folders, words, files, stems, whole, strict=True)
    ]


@dataclass(frozen=True)
class _Words:
    case: str  # without what is stripped
    volume: str  # without words for contrast and label only
    contrast: str
    label: bool
    parts: frozenset[str] = frozenset()


def _words(file: PurePath, stem: str, channels: bool) -> _Words:
    """A name taken apart from its end."""
    parents = [part.lower() for part in file.parts[:-1]]
    contrast = next((part for part in reversed(parents) if part in CONTRASTS), "")
    label = any(part in LABEL_FOLDERS for part in parents)
    tokens = re.split(r"([-_. ]+)", stem)  # with what stands between them
    if channels and not label and (found := CHANNEL.fullmatch(stem)):
        words = _words(file.with_name(found[1]), found[1], channels=False)  # as its label has it, which is called the same
        return replace(words, contrast=found[2], label=False)
    kept, after = list(tokens), []  # ``after``: session, frame and the like, which a volume keeps
    while len(kept) > 1:
        word = kept[-1].lower()
        if word in LABEL_WORDS and not label:
            label = True
        elif word in CONTRASTS:
            contrast = contrast or word
        elif word in IMAGE_WORDS:
            pass  # no part of any name
        elif PART.fullmatch(word):
            after = kept[-2:] + after
        elif word.isdecimal() and len(kept) > 4 and PART.fullmatch(kept[-3]):  # ses-1, of two words
            after = kept[-4:] + after
            del kept[-2:]
        else:
            break
        del kept[-2:]
    case = "".join(kept)
    if len(tokens) == 1 and stem.lower() in CONTRASTS:
        return _Words("", "", contrast or stem.lower(), label)
    if len(tokens) == 1 and stem.lower() in LABEL_WORDS:
        return _Words("", "", contrast, True)
    parts = frozenset(re.findall(r"[a-z]+[-_. ]?\d*", "".join(after).lower()))
    return _Words(case, case + "".join(after), contrast, label, parts)


def _is_part(path: str, known: Collection[str]) -> bool:
    """Whether a word of a path says the real or imaginary part, and the other part is among the ``known`` paths, all in lower case.

    Single letters say it where no further one takes their place: other patients may be called p_b, p_s.

    >>> _is_part("p1/real_1", {"p1/real_1", "p1/imag_1"}), _is_part("p1_r", {"p1_r", "p1_l"})
    (True, False)
    >>> _is_part("p1real2", {"p1real2", "p1imag2"}), _is_part("p_r", {"p_r", "p_i"}), _is_part("p_r", {"p_r", "p_i", "p_s"})
    (True, True, False)
    """
    for found in PART_OF_COMPLEX.finditer(path):
        others = IMAGINARY if found[1] in REAL else REAL
        start, end = path[: found.start(1)], path[found.end(1) :]
        beside = {letter for letter in ascii_lowercase if start + letter + end in known}
        letters = len(found[1]) == 1 and bool(beside & OTHER_LETTERS)
        if beside == {"r", "i", "m", "a"}:
            raise InputError(
                f"{path}: whether r, i, m and a are parts of complex images or patients is unclear; name the parts real, imag, mag and "
                "angle, or the patients otherwise"
            )
        if not letters and any(start + other + end in known for other in others):
            return True
    return False


def _unread(stem: str, is_part: bool) -> str:
    """Why a name, as dcm2niix, BIDS or a reconstruction gives it, is not that of an image, or "". With a number, phase is one of the
    heart's cycle. ``is_part``: what :func:`_is_part` says.
    """
    last = re.split(r"[-_. ]+", stem)[-1].lower()
    part = re.search(r"(?<![A-Za-z])part-(phase|real|imag)(?![A-Za-z])", stem, re.I)
    if last in PHASE_WORDS or (part and part[1].lower() == "phase"):
        return "a phase, by its name"
    if part or last == "imaginary" or is_part:
        return "a real or imaginary part, by its name; save both as one complex array"
    return "coil sensitivities, by its name" if last in SENSITIVITY_WORDS else ""


def _joined(words: list[_Words]) -> list[_Words]:
    """The last word of a case is not the patient's where names differ in it alone: p1_x and p1_y are of p1."""
    ends: dict[str, set[str]] = defaultdict(set)
    for word in words:
        start, between, end = _last(word.case)
        if between and re.search(r"\d", start) and not end.isdecimal():
            ends[start].add(end)
    return [
        replace(word, case=start) if between and len(ends.get(start, ())) > 1 and end in ends[start] else word
        for word in words
        for start, between, end in [_last(word.case)]
    ]


def _last(case: str) -> tuple[str, str, str]:
    """A name before its last word, what stands between, and that word."""
    found = re.fullmatch(r"(.*[^-_. ])([-_. ]+)([^-_. ]+)", case)
    return (found[1], found[2], found[3]) if found else (case, "", "")


def _channels(files: Sequence[PurePath], stems: Sequence[str]) -> bool:
    """Whether the numbers at the end of names are channels, as nnU-Net has it: labels are called like images without them, or all
    cases, which have numbers too, have the same ones, from 0000 on.
    """
    labels = {stem for file, stem in zip(files, stems, strict=True) if any(part.lower() in LABEL_FOLDERS for part in file.parts[:-1])}
    matches = [CHANNEL.fullmatch(stem) for stem in stems]
    if any(match and match[1] in labels and match[0] not in labels for match in matches):
        return True
    if labels or not all(matches):
        return False
    numbers: dict[str, set[int]] = defaultdict(set)
    for match in matches:
        numbers[match[1]].add(int(match[2]))
    return all(re.search(r"\d", case) and found == set(range(len(found))) for case, found in numbers.items())


def says_what(folder: str) -> bool:
    """Whether a folder says what lies in it, rather than whose it is."""
    return folder.lower() in {*SPLIT_FOLDERS, *IMAGE_FOLDERS, *LABEL_FOLDERS, *CONTRASTS}


def says_label(file: PurePath) -> bool:
    """Whether a word of the name, or a folder, says that it is a label.

    >>> says_label(PurePath("P1/s0_mask.png")), says_label(PurePath("masks/s0.png")), says_label(PurePath("P1/s0.png"))
    (True, True, False)
    """
    words = re.split(r"[-_. ]+", file.stem.lower())
    return bool(LABEL_WORDS & set(words)) or any(part.lower() in LABEL_FOLDERS for part in file.parts[:-1])


def says_label_of(file: PurePath) -> bool:
    """:func:`says_label`, and of what: by another word of the name, or by the folder. A name of that word alone may be a sampling mask's.

    >>> says_label_of(PurePath("P1/s0_mask.png")), says_label_of(PurePath("masks/s0.png")), says_label_of(PurePath("P1/mask.png"))
    (True, True, False)
    """
    words = set(re.split(r"[-_. ]+", file.stem.lower()))
    return says_label(file) and (bool(words - LABEL_WORDS) or any(part.lower() in LABEL_FOLDERS for part in file.parts[:-1]))


def of_different_parts(one: Collection[str], other: Collection[str]) -> bool:
    """Whether words of two names, as in :class:`Name`, say that they are of different sessions, frames or phases.

    >>> of_different_parts({"ses-1"}, {"ses-02"}), of_different_parts({"ses-1"}, {"ses01", "orig"}), of_different_parts({"ed"}, {"es"})
    (True, False, True)
    """
    found: list[dict[str, set[int]]] = []
    for parts in (one, other):
        numbers: dict[str, set[int]] = defaultdict(set)
        for part in parts:
            word, digits = re.fullmatch(r"([a-z]*)(.*)", re.sub(r"[-_. ]", "", part.lower())).groups()
            if word in ("ed", "es"):  # ends of diastole and systole
                word, digits = "phase of the heart", str(int(word == "es"))
            if digits.isdecimal():
                numbers[word].add(int(digits))
        found.append(numbers)
    return any(not found[0][word] & found[1][word] for word in found[0].keys() & found[1].keys())


def is_session(folder: str) -> bool:
    """Whether a folder's last part is called like a visit or a date; one patient has several of them.

    >>> is_session("train/visit2"), is_session("2019-03-01"), is_session("case2")
    (True, True, False)
    """
    return SESSION.fullmatch(folder.rpartition("/")[2]) is not None


def patient_folder(file: PurePath) -> str:
    """The folder that may be a patient's: ``sub-XX`` of BIDS, else the topmost that does not say what lies in it; "" where there is none.

    >>> patient_folder(PurePath("train/case1/T1/0.dcm")), patient_folder(PurePath("T1/0.dcm"))
    ('case1', '')
    """
    folders = tuple(part for part in file.parts[:-1] if not says_what(part))
    return _patient(file, folders, _Words("", "", "", False)) if folders else ""


def _patient(file: PurePath, folders: tuple[str, ...], words: _Words) -> str:
    for part in (*file.parts[:-1], file.name):
        if found := re.match(r"sub-[A-Za-z0-9]+", part):
            return found[0]
    named_after = (level for level, folder in enumerate(folders) if re.match(rf"{re.escape(folder)}(?![A-Za-z0-9])", file.name, re.I))
    if folders:
        level = next(named_after, 0)
        return "/".join((*folders[:level], _owner(folders[level])))
    return words.case or file.name


def _owner(folder: str) -> str:
    """Whose folder it is: without session or contrast at its end, and without the time point of BraTS."""
    if found := re.fullmatch(r"(BraTS-[A-Za-z]+-\d+)-\d+", folder, re.I):
        return found[1]
    return _words(PurePath(folder), folder, channels=False).case or folder


def _chosen_patient(file: PurePath, words: _Words, how: str, numbered: dict[str, str]) -> str:
    if how == "name":
        return numbered.get(words.case, words.case) or file.name
    if how == "case":
        return words.case or file.name
    if how == "file" or (how == "folder" and len(file.parts) == 1):  # what its label is called too: prom.datasets.roles divides them
        folders = tuple(part for part in file.parts[:-1] if not says_what(part))
        nameless = folders and (not words.case or words.case.lower() in IMAGE_WORDS)  # P1/image and P1/seg are of P1
        return "/".join((*folders, *(() if nameless else (words.case or file.name,))))
    return by_folder(file, how)


def by_folder(file: PurePath, how: str) -> str:
    """The folder of a file that ``how`` names: "folder" (the innermost), or its number on the path, from 1.

    >>> by_folder(PurePath("a/b/0.dcm"), "folder"), by_folder(PurePath("a/b/0.dcm"), "1")
    ('a/b', 'a')
    """
    folders = file.parts[:-1]
    if how == "folder" and folders:
        return "/".join(folders)
    if how == "folder":
        raise InputError(f"patient folder: {file.as_posix()} does not lie in one; say who is a patient in another way")
    if not (how.isascii() and how.isdecimal() and int(how) >= 1):
        raise InputError(
            f"patient {how!r}: must be file, name, case, folder, or the number of a folder on the path, from 1; for DICOM id, study"
        )
    if int(how) > len(folders):
        raise InputError(f"patient {how}: {file.as_posix()} does not lie in {how} folder(s); give a smaller number, or file")
    return "/".join(folders[: int(how)])


def _refuse_unclear(files: Sequence[PurePath], folders: Sequence[tuple[str, ...]], words: Sequence[_Words]) -> None:
    """{a, b}/{one, two}.npy: two patients, or two of something else, of the same patients?"""
    holders: dict[str, set[str]] = defaultdict(set)
    inside: dict[str, set[str]] = defaultdict(set)
    for file, folder, word in zip(files, folders, words, strict=True):
        named_after = folder and file.name.lower().startswith(folder[-1].lower())
        if len(folder) == 1 and word.case and not named_after and not re.match("sub-", file.as_posix()) and not re.search(r"\d", folder[0]):
            holders[word.case].add(folder[0])
            inside[folder[0]].add(word.case)
    twice = [case for case, where in holders.items() if len(where) > 1]
    if len(twice) > 1:
        first, second = sorted(holders[twice[0]])[:2]
        one, two = twice[:2]
        raise InputError(
            f"{first}/{one}, {first}/{two} and {second}/{one}, {second}/{two}: whether {first!r} or {one!r} is a patient is unclear; "
            "give patient=folder, or patient=name where files of one name in several folders are of one patient"
        )


def _numbered(files: Sequence[PurePath], folders: Sequence[tuple[str, ...]], words: Sequence[_Words]) -> dict[str, str]:
    """Of names that are all that says whose a file is, those that end in a number, without it: all where two starts have one in common,
    else those whose start stands alone.

    >>> paths = [PurePath(f"P{i}_{n}.npy") for i in (1, 2) for n in (0, 1)]
    >>> _numbered(paths, [()] * 4, [_words(path, path.stem, False) for path in paths])
    {'P1_0': 'P1', 'P1_1': 'P1', 'P2_0': 'P2', 'P2_1': 'P2'}
    """
    cases = {word.case for file, folder, word in zip(files, folders, words, strict=True) if not folder and not file.name.startswith("sub-")}
    starts: dict[str, set[str]] = defaultdict(set)
    for case in cases:
        start, between, end = _last(case)
        if between and end.isdecimal():
            starts[end].add(start)
    shared = any(len(those) > 1 for those in starts.values())
    taken = {case: _last(case) for case in sorted(cases)}
    return {case: start for case, (start, between, end) in taken.items() if between and end.isdecimal() and (shared or start in cases)}


def _refuse_numbered(files: Sequence[PurePath], folders: Sequence[tuple[str, ...]], words: Sequence[_Words]) -> None:
    """P1_0, P1_1, P2_0, P2_1: slices of two patients, or four of two hospitals?"""
    numbered = _numbered(files, folders, words)
    cases = {word.case for word in words}
    if len(set(numbered.values()) - cases) < len(numbered):  # else one number for each start, and both readings are the same
        ends = {case: _last(case)[2] for case in numbered}
        pairs = ((one, two) for one in numbered for two in numbered if ends[one] == ends[two] and numbered[one] != numbered[two])
        case, other = next(pairs, None) or next((one, start) for one, start in numbered.items() if start in cases)
        start = numbered[case]
        raise InputError(
            f"{case} and {other}: whether {case!r} or {start!r} is a patient is unclear; give patient=name where {start!r} is one, or "
            "patient=case"
        )
