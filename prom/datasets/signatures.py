"""What a file is by its first bytes, where its name says something else."""

from __future__ import annotations

from pathlib import Path

from prom.errors import InputError

HEAD = 512  # bytes that are looked at
SIGNATURES = (  # first bytes, what they are of
    (b"\x1f\x8b", "gzip"),
    (b"PK\x03\x04", "a zip archive"),
    (b"\x93NUMPY", "npy"),
    (b"\x89HDF\r\n\x1a\n", "HDF5"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"MATLAB 5.0 MAT-file", "MATLAB 5"),
    (b"MATLAB 7.3 MAT-file", "MATLAB 7.3"),
    (b"%PDF-", "PDF"),
    (b"GIF8", "GIF"),
    (b"\x28\xb5\x2f\xfd", "zstandard"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\0", "xz"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (b"Rar!", "a RAR archive"),
)
RIGHT = {  # what the files of each ending are
    ".nii": ("NIfTI",),
    ".nii.gz": ("gzip",),
    ".img.gz": ("gzip",),
    ".mgz": ("gzip",),
    ".mgh": (),
    ".npy": ("npy",),
    ".npz": ("a zip archive",),
    ".h5": ("HDF5",),
    ".hdf5": ("HDF5",),
    ".mrd": ("HDF5",),
    ".mat": ("MATLAB 5", "MATLAB 7.3", "HDF5"),
    **dict.fromkeys((".png", ".tif", ".tiff", ".jpg", ".jpeg"), ("PNG", "JPEG", "TIFF")),
    **dict.fromkeys((".dcm", ".dicom"), ("DICOM",)),
}


def signature(head: bytes) -> str | None:
    """What the first `HEAD` bytes of a file say it is, or None.

    >>> signature(b"\\x93NUMPY\\x01\\0"), signature(b"something")
    ('npy', None)
    """
    if head[128:132] == b"DICM":
        return "DICOM"
    if head[344:348] in (b"n+1\0", b"ni1\0") or head[4:8] == b"n+2\0":
        return "NIfTI"
    return next((what for first, what in SIGNATURES if head.startswith(first)), None)


def check_signature(path: Path) -> None:
    """Refuse a file that by its content is something else than its ending says, or only stands for a file that is elsewhere.

    Raises
    ------
    InputError
        Where it is a pointer of git-lfs or git-annex, a web page, or of another format.
    """
    with open(path, "rb") as file:
        head = file.read(HEAD)
    if head.startswith(b"version https://git-lfs"):
        raise InputError(f"{path}: is a pointer of git-lfs, the file itself was not downloaded; run git lfs pull")
    if head.startswith((b"/annex/objects/", b"../.git/annex/objects/", b".git/annex/objects/")):
        raise InputError(f"{path}: is a pointer of git-annex, the file itself was not downloaded; run git annex get")
    if head.lstrip()[:14].lower().startswith((b"<!doctype html", b"<html")):
        raise InputError(f"{path}: is a web page, perhaps of a download that failed; download it again")
    ending = max((ending for ending in RIGHT if path.name.lower().endswith(ending)), key=len, default=None)
    found = signature(head)
    if ending is None or found is None or found in RIGHT[ending]:
        return
    known = [other for other, right in RIGHT.items() if found in right]
    way = f"if it is whole, call it {' or '.join(known)}" if known else f"remove it or save it as {ending}"
    raise InputError(f"{path}: is {found} by its content, not what its ending {ending} says; {way}")
