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
THREE_DIMENSIONAL = 4  # what the protocol calls it
ADJUSTMENTS = {"AdjCoilSens": 5000.0, "AdjQuietCoilSens": 4000.0}  # measured before the image, with noise of this dwell time in ns


def lines(path: Path) -> dict[str, np.ndarray]:
    """All lines of images in the file, then those for sensitivities alone: ``data`` (lines, coils, samples) complex64; of each line its
    counters, ``position`` in mm, ``centre_line``, ``centre_partition``, ``centre_sample``, ``cut`` samples and whether it is
    ``backwards``, ``calibration`` data, and that alone (``reference``); ``rows``, ``columns``, ``partitions``, ``trajectory`` and
    ``extent`` in mm of the protocol; ``noise`` (lines, coils, samples), none or some; ``dwell`` and ``noise_dwell`` in ns, 0 where unknown.

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
    measured = [(scan, blocks) for scan, blocks in measured if blocks and _name(scan) not in ADJUSTMENTS]
    if len(measured) != 1:
        raise ValueError(f"{len(measured)} measurements with images, must be one")
    [(scan, blocks)] = measured
    shapes = {block.data.shape for block in blocks}
    if len(shapes) != 1:
        raise ValueError(f"lines of several shapes, {sorted(shapes)}")
    references = [block for block in scan["mdb"] if _is_reference(block) and block.data.shape in shapes]
    arrays = {"reference": np.array([False] * len(blocks) + [True] * len(references))}
    blocks += references
    protocol = scan["hdr"]["MeasYaps"]["sKSpace"]
    arrays |= {name: np.array([getattr(block, counter) for block in blocks]) for name, counter in COUNTERS.items()}
    arrays["centre_line"] = np.array([block.mdh.CenterLin for block in blocks])
    arrays["centre_partition"] = np.array([block.mdh.CenterPar for block in blocks])
    arrays["centre_sample"] = np.array([block.mdh.CenterCol for block in blocks])
    arrays["cut"] = np.array([block.mdh.CutOff.Pre + block.mdh.CutOff.Post for block in blocks])
    arrays["backwards"] = np.array([bool(block.is_flag_set("REFLECT")) for block in blocks])
    arrays["calibration"] = np.array([block.is_flag_set("PATREFSCAN") or block.is_flag_set("PATREFANDIMASCAN") for block in blocks])
    places = [block.mdh.SliceData.SlicePos for block in blocks]
    arrays["position"] = np.array([(place.Sag, place.Cor, place.Tra) for place in places], dtype=float)
    arrays["data"] = np.stack([block.data for block in blocks]).astype(np.complex64)
    arrays["rows"], arrays["columns"] = np.array(protocol["lPhaseEncodingLines"]), np.array(protocol["lBaseResolution"])
    arrays["partitions"] = np.array(protocol["lPartitions"] if protocol.get("ucDimension", 2) == THREE_DIMENSIONAL else 1)
    arrays["trajectory"] = np.array(protocol.get("ucTrajectory", 1))
    arrays["extent"], arrays["dwell"] = _extent(scan), _dwell(scan)
    arrays["noise"], arrays["noise_dwell"] = _noise(scans)
    np.savez(sys.__stdout__.buffer, **arrays)


def _is_reference(block: object) -> bool:
    """Whether a line is for sensitivities alone."""
    others = ("ACQEND", "SYNCDATA", "RTFEEDBACK", "HPFEEDBACK", "REFPHASESTABSCAN", "PHASESTABSCAN", "PHASCOR", "NOISEADJSCAN")
    return block.is_flag_set("PATREFSCAN") and not block.is_image_scan() and not any(block.is_flag_set(name) for name in others)


def _noise(scans: list[dict]) -> tuple[np.ndarray, np.ndarray]:
    """The lines of the first noise scan (lines, coils, samples), and their dwell time."""
    for scan in scans:
        blocks = [block for block in scan["mdb"] if block.is_flag_set("NOISEADJSCAN")]
        if blocks and len({block.data.shape for block in blocks}) == 1:
            noise = np.stack([block.data for block in blocks]).astype(np.complex64)
            return noise, np.array(_noise_dwell(_name(scan), noise.shape[-1], "raidfile_hdr" not in scan))
    return np.zeros((0, 0, 0), np.complex64), np.array(0.0)


def _name(scan: dict) -> str:
    """Of the protocol, "" where unknown."""
    try:
        return str(scan["hdr"]["MeasYaps"]["tProtocolName"])
    except (KeyError, TypeError):
        return ""


def _noise_dwell(name: str, samples: int, old: bool) -> float:
    """ns between two samples of noise, which the header does not say: what siemens_to_ismrmrd takes it for; ``old``: of syngo VB.

    Source: https://github.com/ismrmrd/siemens_to_ismrmrd.

    >>> _noise_dwell("gre", 512, old=False), round(_noise_dwell("gre", 512, old=True)), _noise_dwell("AdjCoilSens", 256, old=False)
    (15000.0, 15024, 5000.0)
    """
    if name in ADJUSTMENTS:
        return ADJUSTMENTS[name]
    return 1e9 / samples / 130 if old else int(76800 / samples) * 100.0


def _dwell(scan: dict) -> np.ndarray:
    """ns between two samples, 0 where unknown."""
    try:
        return np.array(float(scan["hdr"]["MeasYaps"]["sRXSPEC"]["alDwellTime"][0]))
    except (KeyError, IndexError, TypeError, ValueError):
        return np.array(0.0)


def _extent(scan: dict) -> np.ndarray:
    """mm along the line, lines and partitions (or the thickness of the slice), 0 where unknown."""
    try:
        protocol = scan["hdr"]["MeasYaps"]
        first, oversampling = protocol["sSliceArray"]["asSlice"][0], protocol["sKSpace"]
        wider = [1.0, *(1 + float(oversampling.get(f"d{name}OversamplingForDialog", 0)) for name in ("Phase", "Slice"))]
        return np.array([float(first[name]) for name in ("dReadoutFOV", "dPhaseFOV", "dThickness")]) * wider
    except (KeyError, IndexError, TypeError, ValueError):
        return np.zeros(3)


if __name__ == "__main__":
    _save(*sys.argv[1:])
