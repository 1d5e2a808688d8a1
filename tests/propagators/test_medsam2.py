"""MedSAM2Propagator on random weights: what is computed how often, what its settings do, how it fails."""

import logging
from itertools import pairwise

import numpy as np
import pytest

from medvol.core.errors import ConfigError, PropagationError
from medvol.core.types import Evidence, Volume
from medvol.propagators.feature_cache import FeatureCacheSettings
from medvol.propagators.medsam2 import MedSAM2Propagator
from medvol.propagators.sam2_family.medsam2_network import TrackerNetwork
from medvol.propagators.sam2_family.track_repair import RepairRule, keep_largest

BOX = np.array([[12.0, 10, 50, 44]])


@pytest.fixture
def counted(monkeypatch):
    """Every slice that is encoded, as its mean grey level."""
    calls = []
    encode = TrackerNetwork.encode

    def count(self, pixels):
        calls.append(pixels.mean())
        return encode(self, pixels)

    monkeypatch.setattr(TrackerNetwork, "encode", count)
    return calls


def make(folder, **settings):
    return MedSAM2Propagator(folder, window="soft_tissue", **settings)


def test_every_slice_is_encoded_once_for_all_anchors(random_folder, noisy_volume, eight_prompts, counted):
    propagator = make(random_folder)
    propagator.propagate_many(noisy_volume, eight_prompts)
    assert len(counted) == len(set(counted)) == 9
    propagator.propagate(noisy_volume, Evidence(6, BOX))
    assert len(counted) == 9


def test_only_the_range_is_encoded_and_followed(random_folder, noisy_volume, counted):
    propagator = make(random_folder)
    mask = propagator.propagate(noisy_volume, Evidence(4, BOX), (3, 6))
    assert len(counted) == 3
    assert np.flatnonzero(mask.any(axis=(1, 2))).tolist() == [3, 4, 5]
    assert np.array_equal(mask[3:6], propagator.propagate(noisy_volume, Evidence(4, BOX))[3:6])
    counted.clear()
    make(random_folder).propagate_many(noisy_volume, [Evidence(2, BOX), Evidence(3, BOX)], z_ranges=[(1, 4), (2, 5)])
    assert len(counted) == 4


def test_equal_boxes_are_followed_once(random_folder, noisy_volume, monkeypatch):
    rows = []
    follow = TrackerNetwork.follow
    monkeypatch.setattr(
        TrackerNetwork, "follow", lambda self, f, *rest: (rows.append(len(f.coarse)), follow(self, f, *rest))[1]
    )
    propagator = make(random_folder)
    propagator.propagate_many(noisy_volume, [Evidence(4, BOX), Evidence(4, BOX), Evidence(4, np.vstack([BOX, BOX]))])
    assert sum(rows) == 8


def test_rows_of_a_batch_are_bounded_and_do_not_matter(random_folder, noisy_volume, eight_prompts, monkeypatch):
    expected = make(random_folder).propagate_many(noisy_volume, eight_prompts)
    rows = []
    follow = TrackerNetwork.follow
    monkeypatch.setattr(
        TrackerNetwork, "follow", lambda self, f, *rest: (rows.append(len(f.coarse)), follow(self, f, *rest))[1]
    )
    found = make(random_folder, tracks_at_once=5).propagate_many(noisy_volume, eight_prompts)
    assert max(rows) == 5
    # Batches sum in another order; test_medsam2_parity.py holds the logits to each other.
    assert sum(int((a != b).sum()) for a, b in zip(found, expected, strict=True)) <= 5


def test_features_outlive_the_process_and_damage_is_mended(random_folder, noisy_volume, counted, tmp_path):
    kept = {"cache": FeatureCacheSettings(mib=0, folder=str(tmp_path / "kept"))}
    evidence = Evidence(4, BOX)
    expected = make(random_folder, **kept).propagate(noisy_volume, evidence)
    assert len(counted) == 9
    again = make(random_folder, **kept).propagate(noisy_volume, evidence)
    assert len(counted) == 9
    files = sorted((tmp_path / "kept").iterdir())
    assert len(files) == 9
    files[0].write_bytes(files[0].read_bytes()[:-1])
    files[1].write_bytes(b"\0" * files[1].stat().st_size)
    mended = make(random_folder, **kept).propagate(noisy_volume, evidence)
    assert len(counted) == 11
    assert np.array_equal(expected, again)
    assert np.array_equal(expected, mended)


def test_features_of_another_window_are_not_mixed_up(random_folder, noisy_volume, counted):
    propagator = MedSAM2Propagator(random_folder)
    lung = Volume(noisy_volume.voxels - 800, noisy_volume.affine, "CT", noisy_volume.volume_id)
    masks = propagator.propagate(noisy_volume, Evidence(4, BOX)), propagator.propagate(lung, Evidence(4, BOX))
    assert len(counted) == 18
    assert np.array_equal(masks[1], MedSAM2Propagator(random_folder, window="lung").propagate(lung, Evidence(4, BOX)))


def test_features_in_bfloat16_err_little(random_folder, noisy_volume, eight_prompts):
    """Half the bytes; of these random logits, which crowd around 0, at most two pixels in a hundred change sides."""
    exact, half = make(random_folder), make(random_folder, cache_precision="bfloat16")
    pairs = zip(*(p.propagate_many(noisy_volume, eight_prompts) for p in (exact, half)), strict=True)
    differ = [float((a != b).mean()) for a, b in pairs]
    assert 0 < np.mean(differ) < 0.02
    assert half._embeddings.bytes_held * 2 == exact._embeddings.bytes_held


def test_target_chooses_the_window(random_folder, noisy_volume):
    named = MedSAM2Propagator(random_folder, target="right lung").propagate(noisy_volume, Evidence(4, BOX))
    assert np.array_equal(
        named, MedSAM2Propagator(random_folder, window="lung").propagate(noisy_volume, Evidence(4, BOX))
    )


def test_largest_component_is_kept_of_every_track(random_folder, noisy_volume):
    boxes = np.array([[2.0, 2, 20, 20], [40, 30, 74, 58]])
    whole, largest = make(random_folder), make(random_folder, largest_component=True)
    expected = np.zeros(noisy_volume.shape, bool)
    for box in boxes:
        expected |= keep_largest(whole.propagate(noisy_volume, Evidence(4, box[None])))
    assert np.array_equal(largest.propagate(noisy_volume, Evidence(4, boxes)), expected)


def test_the_stop_rule_acts_and_says_so(random_folder, noisy_volume, caplog):
    evidence = Evidence(4, BOX)
    areas = make(random_folder).propagate(noisy_volume, evidence).sum(axis=(1, 2))
    leap = max(b / a for a, b in pairwise(areas[4:])) - 1e-6
    with caplog.at_level(logging.WARNING):
        stopped = make(random_folder, repair=RepairRule(max_growth=float(leap))).propagate(noisy_volume, evidence)
    assert 0 < stopped.sum() < areas.sum()
    assert "volume 'noisy', slice 4" in caplog.text
    assert "stop rule: ended at slice" in caplog.text


def test_an_error_names_volume_and_anchor(random_folder, noisy_volume):
    voxels = noisy_volume.voxels.copy()
    voxels[6, 0, 0] = np.inf
    broken = Volume(voxels, noisy_volume.affine, "CT", "case-7")
    propagator = make(random_folder, tracks_at_once=8)
    anchors = [Evidence(2, BOX), Evidence(5, BOX + 1)]
    with pytest.raises(PropagationError, match=r"'case-7', slice 5, boxes \[\(13.0, .*slice 6 holds values"):
        propagator.propagate_many(broken, anchors, z_ranges=[(1, 4), (4, 8)])
    assert propagator.propagate(broken, anchors[0], (1, 4)).any()


def test_logits_that_are_not_numbers_are_an_error(random_folder, noisy_volume):
    propagator = make(random_folder)
    propagator._network.model.mask_decoder.upscale_conv1.bias.fill_(float("nan"))
    with pytest.raises(PropagationError, match=r"slice 4.* not finite"):
        propagator.propagate(noisy_volume, Evidence(4, BOX))


def test_a_failing_network_is_a_named_error(random_folder, noisy_volume, monkeypatch):
    def fail(*arguments):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(TrackerNetwork, "follow", fail)
    with pytest.raises(PropagationError, match=r"'noisy', slice 4, .*RuntimeError: out of memory"):
        make(random_folder).propagate(noisy_volume, Evidence(4, BOX))


def test_a_cache_folder_that_cannot_be_written_is_a_setting_at_fault(random_folder, noisy_volume, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"cache\.folder"):
        make(random_folder, cache=FeatureCacheSettings(folder=str(tmp_path / "file"))).propagate(
            noisy_volume, Evidence(4, BOX)
        )


@pytest.mark.parametrize(
    "settings",
    [{"window": "lungs"}, {"tracks_at_once": 0}, {"image_size": 500}],
)
def test_settings_that_cannot_be_used_are_refused(settings):
    with pytest.raises(ConfigError):
        MedSAM2Propagator(**settings)


def test_settings_of_a_group_that_cannot_be_used_are_refused():
    with pytest.raises(ConfigError, match=r"repair\.max_growth is -1; it must be 0 or more"):
        RepairRule(max_growth=-1)
    for share in (-0.1, 1.5, float("nan")):
        with pytest.raises(ConfigError, match=rf"repair\.min_area_share is {share}; it is a share, from 0 to 1"):
            RepairRule(min_area_share=share)
    with pytest.raises(ConfigError, match=r"cache\.mib is -1; it must be 0 or more"):
        FeatureCacheSettings(mib=-1)


def test_a_device_that_does_not_exist_is_refused(random_folder, noisy_volume):
    with pytest.raises(ConfigError, match="device 'cuda:99' cannot be used"):
        make(random_folder, device="cuda:99").propagate(noisy_volume, Evidence(4, BOX))


def test_identity_changes_with_what_changes_the_mask(random_folder, tmp_path):
    first = make(random_folder).identity()
    assert first["name"] == "MedSAM2Propagator"
    assert len(first["weights_sha256"]) == 64
    assert first["image_size"] == 128
    assert make(random_folder, cache=FeatureCacheSettings(folder=str(tmp_path)), tracks_at_once=3).identity() == first
    others = ({"prompt": "box"}, {"series": "range"}, {"cache_precision": "bfloat16"}, {"repair": RepairRule(0, 2.0)})
    assert {first[key] for key in ("min_area_share", "max_growth", "max_gap_slices")} == {0}
    for settings in others:
        assert make(random_folder, **settings).identity() != first
