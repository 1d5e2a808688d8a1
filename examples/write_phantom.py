"""Write a drawn abdomen scan as NIfTI, in Hounsfield units and with its geometry: something to ask questions about.

    python examples/write_phantom.py phantom.nii.gz
    medvol segment phantom.nii.gz "the organ that produces bile"

The scan is a test phantom: no policy was trained on it.
"""

import argparse
from pathlib import Path

import medvol


def draw_phantom(number: int) -> medvol.Volume:
    """Draw a test phantom."""
    dataset = medvol.DATASETS.get("PhantomDataset")(split="test", num_volumes=number + 1)
    keys = [dataset.volume_key(index) for index in range(len(dataset))]
    volume: medvol.Volume = dataset[keys.index(keys[-1])].volume
    return volume


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path, nargs="?", default=Path("phantom.nii.gz"), help="file to write")
    parser.add_argument("--number", type=int, default=0, help="which phantom")
    options = parser.parse_args()
    drawn = draw_phantom(options.number)
    medvol.write_volume(options.path, drawn)
    spacing = ", ".join(f"{side:.2f}" for side in drawn.spacing)
    print(f"{options.path}: {drawn.shape} voxels (z, y, x) of {spacing} mm")
