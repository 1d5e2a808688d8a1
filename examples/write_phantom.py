"""Write a drawn abdomen scan as NIfTI, in Hounsfield units and with its geometry: something to ask questions about.

    python examples/write_phantom.py phantom.nii.gz
    medvol segment phantom.nii.gz "the organ that produces bile" --policy runs/quickstart/model

The scan is a test phantom: no policy was trained on it.
"""

import argparse
from pathlib import Path

import nibabel as nib
import numpy as np

import medvol


def write_phantom(path: Path, number: int) -> medvol.Volume:
    """Write a test phantom; return its volume."""
    dataset = medvol.DATASETS.get("PhantomDataset")(split="test", num_volumes=number + 1)
    keys = [dataset.volume_key(index) for index in range(len(dataset))]
    volume = dataset[keys.index(keys[-1])].volume
    image = nib.Nifti1Image(np.rint(volume.voxels).astype(np.int16).transpose(2, 1, 0), volume.affine)
    image.header.set_xyzt_units("mm")
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)
    return volume


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path, nargs="?", default=Path("phantom.nii.gz"), help="file to write")
    parser.add_argument("--number", type=int, default=0, help="which phantom")
    options = parser.parse_args()
    written = write_phantom(options.path, options.number)
    print(f"{options.path}: {written.shape} voxels (z, y, x) of {np.round(written.spacing, 2).tolist()} mm")
