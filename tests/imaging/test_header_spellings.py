"""NRRD and MetaImage headers in every spelling that ITK reads: our voxels and our geometry are ITK's."""

import gzip
import zlib

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scan_bytes import Scans

from medvol.imaging.formats.itk_geometry import RAS
from medvol.imaging.reading import read_volume

SCANS = Scans()
RAW = SCANS.raw()
SHARE = len(RAW) // 12
PARTS = {f"v{k:02d}.raw": RAW[k * SHARE : (k + 1) * SHARE] for k in range(12)}
LISTED = "\n".join(PARTS).encode() + b"\n"


def check(path):
    """Voxels, spacing and place are what SimpleITK reads."""
    image = sitk.ReadImage(str(path))
    expected = sitk.GetArrayFromImage(image).transpose(2, 1, 0)
    np.testing.assert_array_equal(expected, SCANS.voxels())
    volume = read_volume(path)
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    np.testing.assert_array_equal(volume.source.affine, RAS @ affine)
    stored = np.flip(volume.voxels.transpose(2, 1, 0), [i for i in range(3) if volume.source.orientation[i, 1] < 0])
    np.testing.assert_array_equal(stored, SCANS.voxels())


def spelled(*words):
    """Any of the words, in any mixture of capitals."""
    return st.sampled_from(words).flatmap(
        lambda word: st.lists(st.booleans(), min_size=len(word), max_size=len(word)).map(
            lambda up: "".join(c.upper() if u else c.lower() for c, u in zip(word, up, strict=True))
        )
    )


NRRD = {
    "type": spelled("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
    "space": spelled(
        *("left-posterior-superior", "left posterior superior", "leftposteriorsuperior", "LPS"),
        *("right-anterior-superior", "right anterior superior", "RAS", "left-anterior-superior", "LAS"),
    ),
    "encoding": spelled("raw", "gzip", "gz"),
    "endian": spelled("little"),
    "kinds": spelled("domain domain domain", "space space space"),
    "space units": spelled('"mm" "mm" "mm"', '"millimeter" "millimeter" "millimeter"'),
    "centerings": spelled("cell cell cell", "node node node"),
}


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(fields=st.fixed_dictionaries(NRRD), line=st.sampled_from(["\n", "\r\n"]), keys=st.randoms(use_true_random=False))
def test_words_of_nrrd(tmp_path, fields, line, keys):
    data = RAW if fields["encoding"].lower() == "raw" else gzip.compress(RAW[:999]) + gzip.compress(RAW[999:])
    changes = {key.replace(" ", "_"): value for key, value in fields.items()}
    head, voxels = SCANS.nrrd(data, separator=line, **changes), len(data)
    lines = head[: len(head) - voxels].decode().split(line)
    lines[1:] = [_respell(one, keys) for one in lines[1:]]
    (tmp_path / "s.nrrd").write_bytes(line.join(lines).encode() + data)
    check(tmp_path / "s.nrrd")


def _respell(line, rng):
    """The field's name in capitals, or without its blank."""
    key, found, value = line.partition(": ")
    key = rng.choice([key, key.upper(), key.title(), key.replace(" ", "") if key.startswith("space ") else key])
    return key + found + value


META = {
    "BinaryData": st.sampled_from(["True", "true", "TRUE", "T", "1", None]),
    "BinaryDataByteOrderMSB": st.sampled_from(["False", "false", "F", "0", "no", None]),
    "CompressedData": st.sampled_from(["False", "false", "FALSE", "0", None]),
    "ElementDataFile": st.sampled_from(["LOCAL", "Local", "local"]),
    "DistanceUnits": st.sampled_from(["mm", "MM", "?", None]),
    "ElementToIntensityFunctionSlope": st.sampled_from(["1", "1.0", None]),
    "ElementToIntensityFunctionOffset": st.sampled_from(["0", "0.0", None]),
    "HeaderSize": st.sampled_from(["0", "-1", None]),
}
NAMES = {
    "TransformMatrix": ("TransformMatrix", "Rotation", "Orientation"),
    "Offset": ("Offset", "Position", "Origin"),
    "ElementSpacing": ("ElementSpacing", "ElementSize"),
}


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    fields=st.fixed_dictionaries(META),
    names=st.fixed_dictionaries({key: st.sampled_from(words) for key, words in NAMES.items()}),
    sign=st.sampled_from([" = ", "=", " : ", ": "]),
    line=st.sampled_from(["\n", "\r\n"]),
)
def test_words_of_metaimage(tmp_path, fields, names, sign, line):
    text = SCANS.meta(b"", **fields).decode()
    for key, name in names.items():
        text = text.replace(f"{key} =", f"{name} =")
    (tmp_path / "s.mha").write_bytes(text.replace(" = ", sign).replace("\n", line).encode() + RAW)
    check(tmp_path / "s.mha")


PLACES = {
    "bytes before": (SCANS.nrrd(b"abcd" + RAW, byte_skip="4"), {}),
    "whatever is before": (SCANS.nrrd(b"abcd" + RAW, byte_skip="-1"), {}),
    "lines and bytes before": (SCANS.nrrd(b"ab\nabc" + RAW, line_skip="1", byte_skip="3"), {}),
    "bytes in the stream": (SCANS.nrrd(gzip.compress(b"abcd" + RAW), byte_skip="4", encoding="gzip"), {}),
    "a line before the stream": (SCANS.nrrd(b"abc\n" + gzip.compress(RAW), line_skip="1", encoding="gzip"), {}),
    "members without bytes": (
        SCANS.nrrd(gzip.compress(RAW[:9]) + gzip.compress(b"") * 9 + gzip.compress(RAW[9:]), encoding="gzip"),
        {},
    ),
    "zeros after the stream": (SCANS.nrrd(gzip.compress(RAW) + bytes(512), encoding="gzip"), {}),
    "a file": (SCANS.nrrd(b"", Data_File="v.raw"), {"v.raw": RAW}),
    "a list": (SCANS.nrrd(b"").rstrip(b"\n") + b"\ndata file: LIST\n" + LISTED, PARTS),
    "a list of slabs": (
        SCANS.nrrd(b"").rstrip(b"\n") + b"\ndata file: LIST 3\na\nb\n",
        {"a": RAW[: 6 * SHARE], "b": RAW[6 * SHARE :]},
    ),
    "a series": (SCANS.nrrd(b"", data_file="v%02d.raw 0 11 1"), PARTS),
    "a series backwards": (
        SCANS.nrrd(b"", data_file="v%02d.raw 11 0 -1 2"),
        {f"v{11 - k:02d}.raw": RAW[k * SHARE : (k + 1) * SHARE] for k in range(12)},
    ),
    "a list of streams": (
        SCANS.nrrd(b"", encoding="gzip").rstrip(b"\n") + b"\ndata file: LIST\n" + LISTED,
        {name: gzip.compress(part) for name, part in PARTS.items()},
    ),
    "carriage returns": (SCANS.nrrd(separator="\r"), {}),
}
META_PLACES = {
    "a file": (SCANS.meta(b"", ElementDataFile="v x.raw"), {"v x.raw": RAW}),
    "a file, no line end": (SCANS.meta(b"", ElementDataFile="v.raw").rstrip(b"\n"), {"v.raw": RAW}),
    "bytes before": (SCANS.meta(b"", ElementDataFile="v.raw", HeaderSize="4"), {"v.raw": b"abcd" + RAW}),
    "whatever is before": (SCANS.meta(b"", ElementDataFile="v.raw", HeaderSize="-1"), {"v.raw": b"abcd" + RAW}),
    "a list": (SCANS.meta(LISTED, ElementDataFile="LIST"), PARTS),
    "a list of planes": (SCANS.meta(LISTED, ElementDataFile="LIST 2"), PARTS),
    "a series": (SCANS.meta(b"", ElementDataFile="v%02d.raw 0 11 1"), PARTS),
    "a stream of known size": (
        SCANS.meta(zlib.compress(RAW), CompressedData="true", CompressedDataSize=str(len(zlib.compress(RAW)))),
        {},
    ),
    "big endian": (SCANS.meta(SCANS.raw(">i2"), BinaryDataByteOrderMSB="true"), {}),
}


@pytest.mark.parametrize(
    ("name", "place"),
    [("s.nhdr", key) for key in PLACES] + [("s.mhd", key) for key in META_PLACES],
)
def test_places_of_voxels(name, place, tmp_path):
    data, files = (PLACES if name == "s.nhdr" else META_PLACES)[place]
    for file, content in files.items():
        (tmp_path / file).write_bytes(content)
    (tmp_path / name).write_bytes(data)
    check(tmp_path / name)


@pytest.mark.parametrize("ending", [".mhd", ".nhdr"])
@pytest.mark.parametrize("listed", [False, True], ids=["a file", "a list"])
def test_names_of_files_with_letters_beyond_ascii(tmp_path, ending, listed):
    """ITK writes them in UTF-8."""
    files = {f"größe{k}.raw": part for k, part in enumerate(PARTS.values())} if listed else {"größe.raw": RAW}
    for file, content in files.items():
        (tmp_path / file).write_bytes(content)
    names = "".join(f"{file}\n" for file in files).encode()
    first = b"LIST\n" + names if listed else names
    if ending == ".mhd":
        data = SCANS.meta(b"", ElementDataFile="NAME").replace(b"NAME\n", first)
    else:
        data = SCANS.nrrd(b"").rstrip(b"\n") + b"\ndata file: " + first
    (tmp_path / f"s{ending}").write_bytes(data)
    check(tmp_path / f"s{ending}")


@pytest.mark.parametrize("ending", [".mhd", ".nhdr"])
def test_what_simpleitk_writes_under_such_a_name_is_read(tmp_path, ending):
    (tmp_path / "sound.mha").write_bytes(SCANS.meta(RAW))
    sitk.WriteImage(sitk.ReadImage(str(tmp_path / "sound.mha")), str(tmp_path / f"größe{ending}"))
    check(tmp_path / f"größe{ending}")


def test_a_header_in_latin_1_names_its_file(tmp_path):
    (tmp_path / "größe.raw").write_bytes(RAW)
    (tmp_path / "s.mhd").write_bytes(
        SCANS.meta(b"", ElementDataFile="NAME").replace(b"NAME", "größe.raw".encode("latin-1"))
    )
    (tmp_path / "sound.mha").write_bytes(SCANS.meta(RAW))
    assert read_volume(tmp_path / "s.mhd").volume_id == read_volume(tmp_path / "sound.mha").volume_id


def test_a_part_that_is_cut_is_named(tmp_path):
    data, files = PLACES["a list"]
    for file, content in {**files, "v03.raw": files["v03.raw"][:-1], "v04.raw": b"x" + files["v04.raw"]}.items():
        (tmp_path / file).write_bytes(content)
    (tmp_path / "s.nhdr").write_bytes(data)
    with pytest.raises(Exception, match=r"v03.raw holds 479 bytes of voxels, not 480"):
        read_volume(tmp_path / "s.nhdr")


def test_long_of_itk_has_32_bits(tmp_path):
    (tmp_path / "s.mha").write_bytes(SCANS.meta(SCANS.raw("<i4"), ElementType="MET_LONG"))
    check(tmp_path / "s.mha")


@pytest.mark.parametrize("ending", [".mha", ".nrrd"])
def test_a_name_that_is_no_text_costs_its_own_file(tmp_path, ending):
    """ITK ends the process at such a name."""
    import os

    from medvol.imaging.folders import look_into
    from medvol.imaging.formats.problems import UnreadableScanError
    from medvol.imaging.reading import read_volume

    good = tmp_path / f"a{ending}"
    sitk.WriteImage(sitk.GetImageFromArray(np.arange(60, dtype=np.int16).reshape(3, 4, 5)), str(good))
    odd = tmp_path / os.fsdecode(b"caf\xe9" + ending.encode())
    odd.write_bytes(good.read_bytes())
    assert sorted(look_into(tmp_path).scans) == sorted([good, odd])
    with pytest.raises(UnreadableScanError, match="UTF-8"):
        read_volume(odd)
    assert read_volume(good).shape == (3, 4, 5)
