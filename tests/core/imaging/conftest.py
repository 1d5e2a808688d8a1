"""Small scans as bytes, so that a test can damage them."""

import gzip
import struct

import nibabel as nib
import numpy as np
import pytest

SHAPE = (16, 15, 12)
NRRD_LINES = {
    "type": "short",
    "dimension": "3",
    "space": "left-posterior-superior",
    "sizes": "16 15 12",
    "space directions": "(0.8,0,0) (0,0.9,0) (0,0,2.5)",
    "kinds": "domain domain domain",
    "endian": "little",
    "encoding": "raw",
    "space origin": "(1,2,3)",
}
META_LINES = {
    "ObjectType": "Image",
    "NDims": "3",
    "BinaryData": "True",
    "BinaryDataByteOrderMSB": "False",
    "CompressedData": "False",
    "TransformMatrix": "1 0 0 0 1 0 0 0 1",
    "Offset": "1 2 3",
    "ElementSpacing": "0.8 0.9 2.5",
    "DimSize": "16 15 12",
    "ElementType": "MET_SHORT",
    "ElementDataFile": "LOCAL",
}


class Scans:
    """Makers of scans: each returns the bytes of a file."""

    shape = SHAPE
    affine = np.array([[-0.8, 0, 0, 11], [0, -0.9, 0, 22], [0, 0, 2.5, 33], [0, 0, 0, 1.0]])

    def voxels(self, dtype=np.int16):
        return np.random.default_rng(7).integers(-1000, 1000, SHAPE).astype(dtype)

    def nifti(self, voxels=None, *, kind=nib.Nifti1Image, change=None, order="<", **fields):
        """NIfTI with both codes set; ``fields`` overwrite the header's, ``change`` edits it."""
        voxels = self.voxels() if voxels is None else voxels
        image = kind(voxels, None, kind.header_class(endianness=order))
        header = image.header
        header.set_data_dtype(voxels.dtype)
        header["pixdim"][1:4] = (0.8, 0.9, 2.5)
        header.set_sform(self.affine, 1)
        header.set_qform(self.affine, 1)
        header.set_xyzt_units("mm")
        block = bytearray(image.to_bytes())
        size = len(header.binaryblock)
        edited = kind.header_class(bytes(block[:size]), endianness=order, check=False)
        for name, value in fields.items():
            edited[name] = value
        if change is not None:
            change(edited)
        return edited.binaryblock + bytes(block[size:])

    def nrrd(self, data=None, separator="\n", **changes):
        """NRRD; ``changes`` name a field with _ for a space, None leaves it out."""
        lines = {**NRRD_LINES, **{key.replace("_", " "): value for key, value in changes.items()}}
        text = ["NRRD0004", *(f"{key}: {value}" for key, value in lines.items() if value is not None), "", ""]
        return separator.join(text).encode() + (self.raw() if data is None else data)

    def meta(self, data=None, **changes):
        """MetaImage; a change to None leaves a field out."""
        lines = {key: value for key, value in {**META_LINES, **changes}.items() if value is not None}
        name = lines.pop("ElementDataFile", None)
        text = [*(f"{key} = {value}" for key, value in lines.items())]
        text += [f"ElementDataFile = {name}", ""] if name else [""]
        return "\n".join(text).encode() + (self.raw() if data is None else data)

    def raw(self, dtype="<i2"):
        return self.voxels().astype(dtype).tobytes(order="F")

    def flip(self, data, position, bit=0):
        damaged = bytearray(data)
        damaged[position] ^= 1 << bit
        return bytes(damaged)

    def zip(self, data):
        return gzip.compress(data, mtime=0)

    def zip_claiming(self, data, size):
        """A gzip stream whose trailer claims another length."""
        return self.zip(data)[:-4] + struct.pack("<I", size)


@pytest.fixture(scope="session")
def scans():
    return Scans()
