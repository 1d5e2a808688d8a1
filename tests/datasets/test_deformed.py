"""Made scans: masks stay on their organs, the body does not fold, sides hold, and the same seed makes the same scan."""

import pickle

import numpy as np
import pytest
from scipy import ndimage

from medvol.cli.experiment_data import build_data
from medvol.core.errors import ConfigError, DatasetError
from medvol.core.roles import CaseDataset
from medvol.core.types import Case, Query
from medvol.datasets.appearance import TISSUES, AppearanceSettings, change_appearance, find_tissues
from medvol.datasets.deformation import DeformationSettings, sample_deformation
from medvol.datasets.deformed import DeformedDataset
from medvol.datasets.joined import JoinedDataset
from medvol.datasets.labelled_source import number_names, read_source
from medvol.datasets.made_scan import KEPT_SHARE, swap_sides
from medvol.datasets.nifti import NiftiDataset
from medvol.datasets.phantom import PhantomDataset
from medvol.datasets.phantom_anatomy import LABELS
from medvol.datasets.settings import CacheSettings, PhrasingSettings, QuestionSettings
from medvol.evaluation.case_finder import CaseFinder
from medvol.evaluation.case_pass import CasePass
from medvol.evaluation.scoring import score_mask
from medvol.evaluation.settings import EvaluationSettings
from medvol.imaging.geometry import make_volume
from medvol.queries.sides import check_sides

STILL = DeformationSettings(0.0, 0.0, 0.0, 0.0, field=(1.0, 1.0), shift=0.0, height=(1.0, 1.0))
PLAIN = AppearanceSettings(remapped=0.0, sampled=0.0, uptake_hu=0.0, noise=0.0, blur_px=0.0)


class Source(CaseDataset):
    """Scans in memory, each with masks by name."""

    def __init__(self, *scans, modality="CT", spacing=(3.0, 2.0, 2.0)):
        self.scans = [
            (make_volume(voxels, spacing, modality, f"source-{i}"), masks) for i, (voxels, masks) in enumerate(scans)
        ]
        self.rows = [(i, name) for i, (_, masks) in enumerate(self.scans) for name in masks]

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        number, name = self.rows[index]
        volume, masks = self.scans[number]
        return Case(f"{number}-{name}", volume, Query(f"the {name}", name), masks[name], f"patient-{number}")

    def volume_key(self, index):
        return f"scan-{self.rows[index][0]}"

    def patient_id(self, index):
        return f"patient-{self.rows[index][0]}"


def half_space(shape=(10, 40, 40)):
    """A scan that is 1000 from column 20 on, and the mask of that."""
    mask = np.zeros(shape, bool)
    mask[:, :, 20:] = True
    return np.where(mask, 1000, 0).astype(np.float32), mask


def cases(*arguments, **settings):
    dataset = DeformedDataset(*arguments, **settings)
    return [dataset[i] for i in range(len(dataset))]


def phantoms(**settings):
    return PhantomDataset(num_volumes=2, shape=(12, 48, 48), **settings)


def test_without_a_change_the_scan_is_its_source():
    voxels, mask = half_space()
    found = cases(Source((voxels, {"liver": mask})), 8, shape=mask.shape, deformation=STILL, appearance=PLAIN)
    whole = next(case for case in found if case.volume.shape == mask.shape)
    np.testing.assert_array_equal(whole.volume.voxels, voxels)
    np.testing.assert_array_equal(whole.target, mask)
    np.testing.assert_allclose(whole.volume.spacing, (3.0, 2.0, 2.0))


def test_a_mask_stays_on_its_organ():
    """Between two half spaces, linear interpolation is above the middle where the nearest voxel is inside."""
    voxels, mask = half_space()
    strong = DeformationSettings(turn_degrees=30.0, tilt_degrees=15.0, stretch=0.5, bend=0.4, field=(0.5, 1.5))
    found = cases(Source((voxels, {"liver": mask})), 6, shape=(10, 48, 48), deformation=strong, appearance=PLAIN)
    assert len({case.target.sum() for case in found}) == 6
    for case in found:
        np.testing.assert_array_equal(case.target, case.volume.voxels > 500)
        np.testing.assert_array_equal(case.labels == LABELS["liver"], case.target)


def test_a_field_of_view_changes_places_and_not_sizes():
    """A ball of 12 mm has 7238 mm3, however it is cut or shown."""
    z, y, x = np.ogrid[:20, :60, :60]
    ball = ((z - 9.5) * 2) ** 2 + ((y - 29.5) * 1) ** 2 + ((x - 29.5) * 1) ** 2 < 12**2
    source = Source((np.zeros(ball.shape, np.float32), {"liver": ball}), spacing=(2.0, 1.0, 1.0))
    wide = DeformationSettings(turn_degrees=20.0, stretch=0.0, bend=0.0, field=(0.7, 1.4), height=(0.8, 1.0))
    for case in cases(source, 5, shape=(40, 96, 96), deformation=wide):
        assert case.target.sum() * np.prod(case.volume.spacing) == pytest.approx(4 / 3 * np.pi * 12**3, rel=0.05)


@pytest.mark.parametrize("seed", range(5))
def test_the_strongest_bend_does_not_fold_the_body(seed):
    settings = DeformationSettings(stretch=0.0, bend=0.4, bend_mm=40.0, field=(1.0, 1.0))
    made = sample_deformation(np.random.default_rng(seed), settings, (30, 60, 60), (3.0, 3.0, 3.0), (40, 80, 80))
    slopes = np.stack([np.stack(np.gradient(part.astype(float)), -1) for part in made.places], -2)
    inside = (made.places[0] > 0) & (made.places[0] < 29)  # where nothing was held back in the source
    assert np.linalg.det(slopes)[inside].min() > 0


def test_the_same_settings_make_the_same_scans():
    source = phantoms()
    first, again = (DeformedDataset(source, 4, shape=(8, 32, 32), cache=CacheSettings(scans=k)) for k in (1, 8))
    for index in (len(first) - 1, 0, 9):
        a, b = first[index], pickle.loads(pickle.dumps(again))[index]
        assert (a.case_id, a.query, a.volume.volume_id) == (b.case_id, b.query, b.volume.volume_id)
        np.testing.assert_array_equal(a.volume.voxels, b.volume.voxels)
        np.testing.assert_array_equal(a.labels, b.labels)
    other = DeformedDataset(source, 4, seed=1, shape=(8, 32, 32))
    assert other[0].volume.volume_id != first[0].volume.volume_id
    assert other[0].volume.shape != first[0].volume.shape or (other[0].volume.voxels != first[0].volume.voxels).any()


def test_scans_of_one_name_are_equal_whatever_their_source_names():
    """A source that names a part more is the same scan, but other intensities are sampled for it."""
    voxels, mask = half_space()
    part = np.zeros_like(mask)
    part[:, :10, :10] = True
    held = []
    for masks in ({"liver": mask}, {"liver": mask, "spleen": part}):
        made = DeformedDataset(
            Source((voxels, masks)), 4, shape=(8, 32, 32), targets=["liver"], appearance=AppearanceSettings(0.0, 1.0)
        )
        held += [{case.volume.volume_id: case.volume.voxels for case in map(made.__getitem__, range(len(made)))}]
    one, other = held
    assert len(one) == len(other) == 4
    assert not one.keys() & other.keys()
    assert not any(np.array_equal(*pair) for pair in zip(one.values(), other.values(), strict=True))


def test_scans_belong_to_the_patients_of_their_sources():
    source = phantoms()
    made = DeformedDataset(source, 5, shape=(8, 32, 32))
    patients = dict.fromkeys((made.volume_key(i), made.patient_id(i)) for i in range(len(made)))
    names = [source.patient_id(0), source.patient_id(len(source) - 1)]
    assert [patient for _, patient in patients] == [names[i % 2] for i in range(5)]
    assert not made.drawn


def test_targets_are_asked_for_in_other_words_each_time():
    made = DeformedDataset(phantoms(), 12, shape=(8, 32, 32), targets=["liver", "left kidney"])
    assert {made[i].query.target for i in range(len(made))} == {"liver", "left kidney"}
    assert len({made[i].query.text for i in range(0, len(made), 2)}) > 4
    held = DeformedDataset(phantoms(), 3, targets=["liver"], questions=PhrasingSettings(phrasing="held_out"))
    assert all(held[i].query.held_out for i in range(len(held)))
    assert held[0].labels.max() > 3, "the others are in the label map all the same"


def test_relations_are_not_asked_for():
    source = phantoms(lesion_share=1.0)
    assert any(source[i].query.meaning for i in range(len(source)))
    asked = {case.query.target for case in cases(source, 2, shape=(8, 32, 32))}
    assert "kidney lesion" in asked
    assert not asked & {"kidney with lesion", "kidney without lesion"}


def test_every_target_keeps_a_share_of_itself():
    source = phantoms(lesion_share=0.0)
    voxel = np.prod(source[0].volume.spacing)
    whole = {source[i].query.target: source[i].target.sum() * voxel for i in range(len(source) // 2)}
    still = DeformationSettings(stretch=0.0, height=(0.4, 0.9))
    big = ("liver", "spleen", "left kidney", "right kidney")
    made = DeformedDataset(source, 8, shape=(24, 64, 64), targets=list(big), deformation=still)
    for case in (made[i] for i in range(len(made)) if made.patient_id(i) == source.patient_id(0)):
        share = case.target.sum() * np.prod(case.volume.spacing) / whole[case.query.target]
        assert share > KEPT_SHARE - 0.05, case.case_id  # the bend changes sizes a little


@pytest.mark.parametrize("mirror", [0.0, 1.0])
def test_left_stays_left(mirror):
    source = phantoms(lesion_share=0.0)
    made = DeformedDataset(
        source, 4, targets=["left kidney", "right kidney", "liver"], deformation=DeformationSettings(mirror=mirror)
    )
    for i in range(0, len(made), 3):
        left, right, liver = made[i], made[i + 1], made[i + 2]
        check_sides(left.target, right.target, left.volume.affine)
        np.testing.assert_array_equal(left.labels == LABELS["left kidney"], left.target)
        middle = ndimage.center_of_mass(liver.target)[2], ndimage.center_of_mass(left.target | right.target)[2]
        assert (middle[0] < middle[1]) == (mirror == 0), "a mirrored liver lies on the left"


def test_a_mirrored_left_kidney_was_the_right_one():
    voxels, mask = half_space()
    small = np.zeros_like(mask)
    small[:, 10:20, 4:10] = True
    source = Source((voxels, {"left kidney": mask, "right kidney": small}))
    turned = DeformationSettings(0, 0, 0, 0, field=(1, 1), shift=0, height=(1, 1), mirror=1.0)
    left, right = cases(source, 1, shape=mask.shape, deformation=turned, appearance=PLAIN)
    count = left.volume.shape[0]
    np.testing.assert_array_equal(left.target, small[:count, :, ::-1])
    np.testing.assert_array_equal(right.target, mask[:count, :, ::-1])
    assert swap_sides("right lung upper lobe") == "left lung upper lobe"
    assert swap_sides("liver") == "liver"


def test_a_ct_stays_a_ct_or_is_said_to_be_none():
    voxels, mask = half_space()
    source = Source((voxels - 500, {"liver": mask}))
    kept, remapped, sampled = (
        {case.volume.modality for case in cases(source, 4, appearance=AppearanceSettings(*shares))}
        for shares in ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0))
    )
    assert (kept, remapped, sampled) == ({"CT"}, {"other"}, {"other"})
    mr = Source((voxels, {"liver": mask}), modality="MR")
    assert {case.volume.modality for case in cases(mr, 3)} == {"MR"}


def test_sampled_intensities_tell_the_label_and_nothing_else():
    classes = np.repeat(np.arange(3, dtype=np.uint8)[:, None, None] + TISSUES, 40, 1).repeat(40, 2)
    settings = AppearanceSettings(0.0, 1.0, noise=0.0, blur_px=0.0, bias=0.0)
    means = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        voxels, _ = change_appearance(rng, settings, np.full(classes.shape, 40, np.float32), classes, "CT")
        means.append([voxels[i].mean() for i in range(3)])
    order = np.argsort(means, axis=1)
    assert {tuple(row) for row in order.tolist()} == {(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)}
    assert np.ptp(means, axis=1).max() > 500


def test_what_has_no_name_is_divided_by_intensity():
    hounsfield = np.array([-1000, -301, -100, -31, 0, 149, 151, 1000], np.float32)
    np.testing.assert_array_equal(find_tissues(hounsfield, "CT"), [0, 0, 1, 1, 2, 2, 3, 3])
    np.testing.assert_array_equal(find_tissues(np.arange(8, dtype=np.float32), "MR"), [0, 0, 1, 1, 2, 2, 3, 3])


def test_uptake_changes_the_soft_tissue_of_structures_only():
    voxels = np.array([[[-500, 40, 40, 900]]], np.float32)
    classes = np.array([[[TISSUES, TISSUES, 2, TISSUES]]], np.uint8)
    settings = AppearanceSettings(0.0, 0.0, uptake_hu=120.0, noise=0.0, blur_px=0.0)
    changed, _ = change_appearance(np.random.default_rng(0), settings, voxels, classes, "CT")
    np.testing.assert_array_equal(changed != voxels, [[[False, True, False, False]]])


def test_a_fine_source_is_averaged_over_blocks():
    voxels = np.arange(2 * 4 * 6, dtype=np.float32).reshape(2, 4, 6)
    mask = voxels >= 24
    case = Case("a", make_volume(voxels, (3.0, 1.0, 1.0)), Query("the liver", "liver"), mask, "p")
    source = read_source([case], (2, 2, 3))
    assert source.spacing == (3.0, 2.0, 2.0)
    np.testing.assert_array_equal(source.voxels[0], [[3.5, 5.5, 7.5], [15.5, 17.5, 19.5]])
    np.testing.assert_array_equal(source.masks["liver"], [np.zeros((2, 3), bool), np.ones((2, 3), bool)])


def test_of_many_slices_two_are_kept_for_each_made_one():
    voxels = np.arange(12, dtype=np.float32)[:, None, None].repeat(4, 1).repeat(4, 2)
    case = Case("a", make_volume(voxels, (1.0, 2.0, 2.0)), Query("the liver", "liver"), voxels > 5, "p")
    source = read_source([case], (2, 4, 4))
    assert source.spacing == (3.0, 2.0, 2.0)
    np.testing.assert_array_equal(source.voxels[:, 0, 0], [1, 4, 7, 10])
    np.testing.assert_array_equal(source.masks["liver"][:, 0, 0], [False, False, True, True])


def test_labels_are_numbered_as_those_of_phantoms():
    numbers = number_names(["liver", "vertebra L1", "duodenum", "colon", "vertebra L2"])
    assert numbers["liver"] == LABELS["liver"]
    assert numbers["vertebra L1"] == numbers["vertebra L2"] == LABELS["spine"]
    assert (numbers["colon"], numbers["duodenum"]) == (len(LABELS), len(LABELS) + 1)


def test_a_smaller_target_covers_a_larger_one_in_the_label_map():
    voxels, mask = half_space()
    part = mask & (np.arange(40) > 30)
    found = cases(Source((voxels, {"gallbladder": part, "liver": mask})), 1, deformation=STILL)
    assert [case.query.target for case in found] == ["gallbladder", "liver"]
    for case, labels in ((found[0], ["gallbladder"]), (found[1], ["gallbladder", "liver"])):
        np.testing.assert_array_equal(np.isin(case.labels, [LABELS[name] for name in labels]), case.target)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"num_volumes": 0}, "num_volumes is 0"),
        ({"shape": (1, 9, 9)}, "shape is (Z, Y, X)"),
        ({"questions": PhrasingSettings(absent_share=0.1)}, "absent_share does not work"),
        ({"cache": CacheSettings(folder="x")}, "cache.folder does not work"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, words):
    with pytest.raises(ConfigError) as refused:
        DeformedDataset(phantoms(), **settings)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: DeformationSettings(bend=0.5), "deformation.bend is 0.5; above 0.4"),
        (lambda: DeformationSettings(bend_mm=0), "deformation.bend_mm is 0; it must be above 0"),
        (lambda: DeformationSettings(height=(0.5, 1.5)), "deformation.height is two numbers above 0 of at most 1"),
        (lambda: DeformationSettings(field=(2.0, 1.0)), "the smaller first"),
        (lambda: DeformationSettings(mirror=2.0), "deformation.mirror is 2.0"),
        (lambda: AppearanceSettings(remapped=0.7, sampled=0.7), "together at most 1"),
        (lambda: AppearanceSettings(noise=-1.0), "appearance.noise is -1.0"),
        (lambda: JoinedDataset([]), "parts is empty"),
        (lambda: DeformationSettings(stretch=float("inf")), "deformation.stretch is inf"),
        (lambda: DeformationSettings(field=(1.0, float("inf"))), "deformation.field is two numbers"),
        (lambda: DeformedDataset(phantoms(), seed=-1), "seed is -1"),
        (lambda: DeformedDataset(phantoms(), targets=["liver", "spleen", "liver"]), "targets has 'liver' twice"),
    ],
)
def test_groups_that_cannot_be_are_refused(make, words):
    with pytest.raises(ConfigError) as refused:
        make()
    assert words in str(refused.value)


def test_sources_that_cannot_be_used_are_named():
    voxels, mask = half_space()
    with pytest.raises(DatasetError, match="case 0-liver of the source has no mask"):
        len(DeformedDataset(Source((voxels, {"liver": None}))))
    with pytest.raises(DatasetError, match="no scan of the source shows 'heart'; it shows liver"):
        len(DeformedDataset(Source((voxels, {"liver": mask})), targets=["heart"]))
    with pytest.raises(DatasetError, match="has no target with a mask"):
        len(DeformedDataset(Source((voxels, {"liver": np.zeros_like(mask)}))))


def test_a_joined_data_set_has_the_cases_of_its_parts():
    first, second = phantoms(seed=3), DeformedDataset(phantoms(), 2, shape=(8, 32, 32))
    joined = JoinedDataset([first, second])
    assert len(joined) == len(first) + len(second)
    for index, (part, own) in {0: (first, 0), -1: (second, -1), len(first): (second, 0)}.items():
        assert joined[index].case_id == part[own].case_id
        assert joined.volume_key(index) == part.volume_key(own)
        assert joined.patient_id(index) == part.patient_id(own)
    assert not joined.drawn
    assert JoinedDataset([first]).drawn
    with pytest.raises(IndexError):
        joined.volume_key(len(joined))


def test_one_key_for_two_volumes_is_refused_and_one_file_in_two_parts_is_not(tmp_path):
    """Scans made of two sources with one seed have the same keys, and would be taken for one scan."""
    made = [DeformedDataset(phantoms(seed=seed), 1, shape=(8, 32, 32)) for seed in (1, 2)]
    with pytest.raises(DatasetError, match="parts 0 and 1 both have a volume 'deformed-0-00000'"):
        len(JoinedDataset(made))

    class Filed(Source):
        def scan_file(self, index):
            return tmp_path / "scan.nii.gz"

    voxels, mask = half_space()
    parts = [Filed((voxels, {name: mask})) for name in ("liver", "spleen")]
    assert [JoinedDataset(parts).volume_key(index) for index in (0, 1)] == [parts[0].volume_key(0)] * 2


def write_hospital(root, table, scan):
    """A table of one scan, whose second line asks for it; hospitals count their scans alike."""
    root.mkdir(parents=True)
    (root / scan).touch()
    (root / "t.csv").write_text(table)
    return NiftiDataset(str(root), str(root / "t.csv"))


def ids_of(joined):
    """Ids of all cases, which are the same when the cases are read."""
    read = [joined[index].case_id for index in range(len(joined))]
    assert [joined.case_id(index) in ("", own) for index, own in enumerate(read)] == [True] * len(read)
    assert len(set(read)) == len(read)
    return read


def test_ids_that_parts_share_are_numbered_and_no_others(tmp_path, caplog):
    """Ids are unique inside one data set; two releases count their scans alike, and one may come in twice."""
    first, second = phantoms(seed=3), phantoms(seed=4)
    own = [part[index].case_id for part in (first, second) for index in range(len(part))]
    assert ids_of(JoinedDataset([first, second])) == own
    assert JoinedDataset([first, second]).case_id(-1) == own[-1]
    plain = "image,target\nscan1.nii.gz,liver\nscan1.nii.gz,spleen\n"
    hospital, other = (write_hospital(tmp_path / name, plain, "scan1.nii.gz") for name in "AB")
    other.questions = QuestionSettings(targets=["spleen"])
    joined = JoinedDataset([hospital, other])
    assert [joined.case_id(i) for i in range(3)] == ["scan1_0002_0", "part0-scan1_0003_0", "part1-scan1_0003_0"]
    assert JoinedDataset([hospital]).case_id(1) == "scan1_0003_0"
    (message,) = caplog.messages
    assert message.startswith("parts 0 and 1 both have scans of the patient 'scan1.nii.gz', who counts as one person")
    twice = JoinedDataset([hospital, hospital])
    assert [twice.case_id(i) for i in (0, 2)] == ["part0-scan1_0002_0", "part1-scan1_0002_0"]
    assert len(caplog.messages) == 1  # the same scans are the same person's
    nested = JoinedDataset([joined, hospital, other])
    assert len({nested.case_id(i) for i in range(len(nested))}) == len(nested) == 6
    assert nested.case_id(1) == "part0-part0-scan1_0003_0"


def test_ids_that_only_reading_tells_are_numbered():
    """Nothing says without reading whether another part has them too."""

    class Elsewhere(Source):
        def volume_key(self, index):
            return f"elsewhere-{super().volume_key(index)}"

    voxels, mask = half_space()
    parts = [kind((voxels, {"liver": mask})) for kind in (Source, Elsewhere)]
    joined = JoinedDataset(parts)
    assert ids_of(joined) == ["part0-0-liver", "part1-0-liver"]
    assert [len(group) for group in CasePass[str]().take([[joined[0]], [joined[1]]])] == [1, 1]
    assert (
        CaseFinder(joined).find(score_mask(None, joined[1], EvaluationSettings(surface=None)), 0).volume
        is joined[1].volume
    )
    assert ids_of(JoinedDataset([phantoms(), parts[0]]))[-1] == "part1-0-liver"
    assert ids_of(JoinedDataset(parts[:1])) == ["0-liver"]


def test_a_target_that_vanishes_is_named(caplog):
    """One voxel between those that a smaller scan keeps."""
    voxels, mask = half_space()
    speck = np.zeros_like(mask)
    speck[0, 1, 1] = True
    made = DeformedDataset(Source((voxels, {"liver": mask, "speck": speck})), 1, shape=(2, 2, 2))
    assert {made[index].query.target for index in range(len(made))} == {"liver"}
    assert "'speck' vanishes in a made scan of 2 x 2 x 2 voxels" in caplog.text


def test_an_experiment_names_its_parts_in_yaml(tmp_path):
    (tmp_path / "experiment.yaml").write_text(
        """
data:
  class_path: CaseDataModule
  init_args:
    train:
      class_path: JoinedDataset
      init_args:
        parts:
          - {class_path: PhantomDataset, init_args: {num_volumes: 1}}
          - class_path: DeformedDataset
            init_args:
              source: {class_path: PhantomDataset, init_args: {num_volumes: 1, seed: 4}}
              num_volumes: 2
              targets: [liver]
              deformation: {bend: 0.2}
              appearance: {sampled: 0.5}
"""
    )
    joined = build_data(tmp_path / "experiment.yaml").splits["train"]
    assert isinstance(joined, JoinedDataset)
    made = joined.parts[1]
    assert isinstance(made, DeformedDataset)
    assert (made.deformation.bend, made.deformation.stretch, made.appearance.sampled) == (0.2, 0.2, 0.5)
    assert joined[-1].query.target == "liver"


def test_a_name_of_several_masks_is_not_asked_for(caplog):
    """The first of two findings of one kind was taught as the whole."""
    voxels, mask = half_space()
    first, second = mask.copy(), mask.copy()
    first[5:], second[:5] = False, False
    volume = make_volume(voxels, (3.0, 2.0, 2.0), "CT", "v")
    cases = [
        Case("a", volume, Query("the upper one", "nodule"), first, "p"),
        Case("b", volume, Query("the lower one", "nodule"), second, "p"),
        Case("c", volume, Query("the liver", "liver"), mask, "p"),
        Case("d", volume, Query("which gland makes bile", "liver"), mask.copy(), "p"),
    ]
    assert set(read_source(cases, mask.shape).masks) == {"liver"}
    assert "several masks are called 'nodule'" in caplog.text
    with pytest.raises(DatasetError, match="no target with a mask"):
        read_source(cases[:2], mask.shape)
