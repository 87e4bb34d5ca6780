"""The lines of Siemens raw data (twix) as its library reads them, and the counters of each.

``twixtools`` reads them. A damaged file can make it run forever, so it runs in a process of its own, with this file as the program,
which therefore imports nothing of the package.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

SECONDS, SECONDS_PER_BYTE = 60, 1e-6  # for one file, and how many more for each of its bytes
MEMORY, MEMORY_PER_BYTE = 4 * 2**30, 20  # bytes of address space that the process gets, and how many more for each byte of the file
COUNTERS = {"slice": "cSlc", "line": "cLin", "partition": "cPar", "contrast": "cEco", "phase": "cPhs", "repetition": "cRep"}
COUNTERS |= {"set": "cSet", "segment": "cSeg"}


def lines(path: Path) -> dict[str, np.ndarray]:
    """All lines of images in the file: ``data`` (lines, coils, samples) complex64; of each line its counters, ``centre_line``,
    ``centre_sample``, ``cut`` samples and whether it is ``backwards``; ``rows``, ``columns`` and ``trajectory`` of the protocol.

    Raises
    ------
    ValueError, TimeoutError
        Where twixtools cannot read the file, crashes on it, or takes too much memory or time.
    """
    from prom.engine import workers  # here, where it is no program

    size = path.stat().st_size
    seconds, memory = SECONDS + SECONDS_PER_BYTE * size, MEMORY + MEMORY_PER_BYTE * size
    with (
        workers.output(__file__, str(path.resolve()), library="twixtools", seconds=seconds, memory=memory) as file,
        np.load(file, allow_pickle=False) as arrays,
    ):
        return dict(arrays)


def _save(path: str) -> None:
    """The program."""
    import twixtools

    scans = twixtools.read_twix(path, verbose=False)
    measured = [(scan, [block for block in scan["mdb"] if block.is_image_scan()]) for scan in scans]
    measured = [(scan, blocks) for scan, blocks in measured if blocks]
    if len(measured) != 1:
        raise ValueError(f"{len(measured)} measurements with images, must be one")
    [(scan, blocks)] = measured
    shapes = {block.data.shape for block in blocks}
    if len(shapes) != 1:
        raise ValueError(f"lines of several shapes, {sorted(shapes)}")
    protocol = scan["hdr"]["MeasYaps"]["sKSpace"]
    arrays = {name: np.array([getattr(block, counter) for block in blocks]) for name, counter in COUNTERS.items()}
    arrays["centre_line"] = np.array([block.mdh.CenterLin for block in blocks])
    arrays["centre_sample"] = np.array([block.mdh.CenterCol for block in blocks])
    arrays["cut"] = np.array([block.mdh.CutOff.Pre + block.mdh.CutOff.Post for block in blocks])
    arrays["backwards"] = np.array([bool(block.is_flag_set("REFLECT")) for block in blocks])
    arrays["data"] = np.stack([block.data for block in blocks]).astype(np.complex64)
    arrays["rows"], arrays["columns"] = np.array(protocol["lPhaseEncodingLines"]), np.array(protocol["lBaseResolution"])
    arrays["trajectory"] = np.array(protocol.get("ucTrajectory", 1))
    np.savez(sys.__stdout__.buffer, **arrays)


if __name__ == "__main__":
    _save(*sys.argv[1:])
