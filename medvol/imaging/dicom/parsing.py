"""Parsing DICOM quietly: what pydicom says and raises on damaged files quotes values, which may name a patient."""

from __future__ import annotations

import logging
import struct
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from medvol.core.errors import MedvolError, MissingExtraError
from medvol.imaging.dicom.problems import BadInstanceError, UndecodablePixelsError

if TYPE_CHECKING:
    from pydicom import Dataset

DEFLATED = "1.2.840.10008.1.2.1.99"
"""Transfer syntax that packs the whole file, header included: nothing in it can be judged before it is inflated."""

_DAMAGE = (
    *(struct.error, EOFError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError),
    *(OSError, NotImplementedError, RecursionError),
)
_META_AT = 132
_PIXELS = (0x7FE00010, 0x7FE00009, 0x7FE00008)
_NO_LENGTH = 0xFFFFFFFF


def read_dataset(path: Path, stream: BinaryIO, keywords: Sequence[str] | None = None) -> Dataset:
    """Parse a DICOM file, with the preamble that it should have or without it.

    Args:
        path: Folder or archive to name in an error.
        stream: The file.
        keywords: Elements to read, without pixels; everything when None.

    Raises:
        UndecodablePixelsError: Its header is packed.
    """
    pydicom = import_pydicom()
    stream.seek(_META_AT - 4)
    if stream.read(4) != b"DICM":
        stream.seek(0)
    meta = pydicom.filereader.read_dataset(stream, False, True, stop_when=lambda tag, vr, length: tag.group != 2)
    syntax = _find_syntax(pydicom, stream, meta)
    if syntax == DEFLATED:
        raise UndecodablePixelsError(path, "a file in it is deflated as a whole; save the series uncompressed")
    tags = None if keywords is None else [pydicom.tag.Tag(keyword) for keyword in keywords]
    stop = None if keywords is None else lambda tag, vr, length: tag in _PIXELS
    implicit, little = syntax == pydicom.uid.ImplicitVRLittleEndian, syntax != pydicom.uid.ExplicitVRBigEndian
    dataset: Dataset = pydicom.filereader.read_dataset(stream, implicit, little, stop_when=stop, specific_tags=tags)
    _check_end(stream, dataset)
    meta.TransferSyntaxUID = syntax
    dataset.file_meta = pydicom.dataset.FileMetaDataset(meta)
    dataset.set_original_encoding(implicit, little, dataset._character_set)
    return dataset


def _find_syntax(pydicom: Any, stream: BinaryIO, meta: Dataset) -> Any:
    """How the elements are written: as the file says, or by the look of the first of them."""
    if said := meta.get("TransferSyntaxUID"):
        return said
    first = stream.read(6)
    stream.seek(-len(first), 1)
    if first[4:6].decode("latin-1") not in pydicom.values.converters:
        return pydicom.uid.ImplicitVRLittleEndian
    return pydicom.uid.ExplicitVRLittleEndian if first[1:2] == b"\0" else pydicom.uid.ExplicitVRBigEndian


def _check_end(stream: BinaryIO, dataset: Dataset) -> None:
    """Refuse a file that ends inside an element, which pydicom reads as if the rest had never been written."""
    here = stream.tell()
    raws: list[Any] = [dataset.get_item(tag) for tag in dataset.keys()]  # noqa: SIM118 - iterating parses the values
    cut = any(isinstance(raw.value, bytes) and len(raw.value) < getattr(raw, "length", 0) != _NO_LENGTH for raw in raws)
    if cut or here > stream.seek(0, 2):
        raise EOFError
    stream.seek(here)


@contextmanager
def quiet_parsing(path: Path) -> Iterator[None]:
    """Turn whatever pydicom raises on a damaged file into one sentence.

    Its messages quote values, which may name a patient: they are silenced, and no error is chained to it.

    Raises:
        BadInstanceError: The file cannot be parsed.
    """
    pydicom = import_pydicom()
    try:
        with quiet_values():
            yield
    except MedvolError:
        raise
    except (pydicom.errors.InvalidDicomError, pydicom.errors.BytesLengthException, *_DAMAGE) as error:
        raise BadInstanceError(
            path, f"a DICOM file in it cannot be parsed ({type(error).__name__}); export the series again"
        ) from None


@contextmanager
def quiet_values() -> Iterator[None]:
    """Silence the warnings and the log of pydicom, which quote values."""
    pydicom = import_pydicom()
    logger = logging.getLogger("pydicom")
    level = logger.level
    try:
        logger.setLevel(logging.CRITICAL + 1)
        with warnings.catch_warnings(), pydicom.config.disable_value_validation():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def import_pydicom() -> Any:
    """The library that parses DICOM.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        import pydicom
        import pydicom.errors
        import pydicom.filereader
        import pydicom.values
    except ImportError as error:
        raise MissingExtraError("pydicom", "dicom") from error
    return pydicom
