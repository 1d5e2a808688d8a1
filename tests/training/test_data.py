"""Batches of volumes: grouping, order, patients kept apart."""

import itertools
from collections import Counter
from importlib.resources import files
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

from medvol.core.errors import ConfigError, DatasetError
from medvol.core.types import Query
from medvol.datasets.phantom import PhantomDataset
from medvol.datasets.settings import CacheSettings
from medvol.queries.query_bank import RELEASE_BANK, QueryBank
from medvol.training.augmentation import FILLERS, KEPT_WORDS, reword_query
from medvol.training.data import CaseDataModule
from medvol.training.volume_loader import VolumeSampler, group_by_volume

SHAPE = (8, 32, 32)


def phantoms(split="train", volumes=4) -> PhantomDataset:
    return PhantomDataset(split, volumes, shape=SHAPE, cache=CacheSettings(scans=8))


def test_every_case_lies_in_the_group_of_its_volume():
    data = phantoms()
    groups = group_by_volume(data)
    assert sorted(i for group in groups for i in group) == list(range(len(data)))
    assert len(groups) == 4
    assert all(len({data.volume_key(i) for i in group}) == 1 for group in groups)


def test_a_batch_holds_groups_that_share_one_volume_object():
    module = CaseDataModule(phantoms(), batch_size=3, queries_per_volume=2)
    module.setup("fit")
    batches = list(module.train_dataloader())
    assert [len(batch) for batch in batches] == [3, 1]
    for group in (group for batch in batches for group in batch):
        assert len(group) == 2
        assert group[0].volume is group[1].volume


@pytest.mark.parametrize("epoch", [0, 1, 7])
def test_the_order_depends_on_seed_and_epoch_alone(epoch):
    groups = [[3 * i, 3 * i + 1, 3 * i + 2] for i in range(11)]
    first = VolumeSampler(groups, 4, 2, True, seed=5)
    second = VolumeSampler(groups, 4, 2, True, seed=5)
    list(first)
    list(first)
    first.set_epoch(epoch)
    second.set_epoch(epoch)
    assert list(first) == list(second)
    second.set_epoch(epoch + 1)
    assert list(first) != list(second)
    assert len(list(first)) == len(first) == 3


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
@pytest.mark.parametrize("shuffle", [False, True])
def test_ranks_share_the_batches_of_one_process(ranks, shuffle):
    """Any size from 1 to 17 and any batch: as many batches everywhere, each volume once, whole, and in order."""
    for size, batch in itertools.product(range(1, 18), (1, 2, 3, 5)):
        groups = [[3 * i, 3 * i + 1, 3 * i + 2] for i in range(size)]
        alone = list(VolumeSampler(groups, batch, 2, shuffle, seed=5))
        samplers = [VolumeSampler(groups, batch, 2, shuffle, 5, rank, ranks) for rank in range(ranks)]
        parts = [list(sampler) for sampler in samplers]
        assert {len(part) for part in parts} == {len(sampler) for sampler in samplers} == {len(alone)}
        for whole, *shares in zip(alone, *parts, strict=True):
            assert [volume for share in shares for volume in share] == whole
            assert max(map(len, shares)) - min(map(len, shares)) <= 1
        for sampler in samplers:
            sampler.skipped = 1
        rests = [list(sampler) for sampler in samplers]
        assert rests == [part[1:] for part in parts]


def test_more_devices_than_volumes_in_a_batch_are_refused():
    module = CaseDataModule(phantoms(), batch_size=2)
    module.trainer = SimpleNamespace(world_size=3, global_rank=0)
    with pytest.raises(ConfigError, match=r"data.batch_size is 2, and 3 devices share each batch.* to 3 or more"):
        module.setup("fit")


@pytest.mark.parametrize("size", range(1, 18))
@pytest.mark.parametrize("ranks", [2, 3])
def test_an_evaluation_deals_every_case_once(size, ranks):
    loaders = []
    for rank in range(ranks):
        module = CaseDataModule(test=PhantomDataset("test", size, shape=(8, 8, 8)))
        module.trainer = SimpleNamespace(world_size=ranks, global_rank=rank, is_global_zero=rank == 0)
        module.setup("test")
        loaders.append(module.test_dataloader())
    assert {len(loader) for loader in loaders} == {-(-size // ranks)}
    rounds = zip(*(loader.sampler for loader in loaders), strict=True)
    dealt = [index for parts in rounds for part in parts for volume in part for index in volume]
    assert dealt == list(range(len(module.splits["test"])))


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # a machine may have one core
def test_workers_change_nothing():
    orders = []
    for workers in (0, 2):
        module = CaseDataModule(phantoms(), batch_size=2, queries_per_volume=3, num_workers=workers, seed=1)
        module.setup("fit")
        orders.append([[case.case_id for case in group] for batch in module.train_dataloader() for group in batch])
    assert orders[0] == orders[1]


def test_a_loader_goes_on_where_it_stopped():
    module = CaseDataModule(phantoms(), batch_size=1, queries_per_volume=1, seed=1)
    module.setup("fit")
    whole = [batch[0][0].case_id for batch in module.train_dataloader()]
    loader = module.train_dataloader()
    passing = iter(loader)
    begun = [next(passing)[0][0].case_id for _ in range(3)]
    resumed = module.train_dataloader()
    resumed.load_state_dict(loader.state_dict())
    rest = [batch[0][0].case_id for batch in resumed]
    assert begun + rest == whole
    assert resumed.state_dict() == {"yielded": 0}
    assert [batch[0][0].case_id for batch in resumed] == whole


def test_lightning_sets_the_epoch():
    from lightning.fabric.utilities.data import _set_sampler_epoch

    module = CaseDataModule(phantoms(), seed=1)
    module.setup("fit")
    loader = module.train_dataloader()
    _set_sampler_epoch(loader, 6)
    assert loader.sampler.epoch == 6


def test_a_shared_patient_is_refused_by_name():
    module = CaseDataModule(phantoms(), val=phantoms())
    with pytest.raises(DatasetError, match="train and val share 4 patient"):
        module.setup("fit")
    CaseDataModule(phantoms(), val=phantoms(), allow_shared_patients=True).setup("fit")
    CaseDataModule(phantoms(), val=phantoms("val")).setup("fit")


@pytest.mark.parametrize(
    ("stage", "split"), [("fit", "train"), ("validate", "val"), ("test", "test"), ("predict", "predict")]
)
def test_a_missing_split_is_named(stage, split):
    with pytest.raises(ConfigError, match=f"data.init_args.{split}"):
        CaseDataModule().setup(stage)


def test_batch_size_is_checked():
    with pytest.raises(ConfigError, match="batch_size is 0; it must be a whole number, 1 or more"):
        CaseDataModule(batch_size=0)


def test_rewording_keeps_what_decides():
    rng = np.random.default_rng(0)
    text = "the kidney without any lesion on the left side of the patient"
    kept = [word for word in text.split() if word in KEPT_WORDS]
    query = Query(text, "kidney without lesion", meaning="left kidney")
    reworded = [reword_query(query, rng, 1.0, 0.9) for _ in range(200)]
    assert all([w for w in new.split() if w in KEPT_WORDS and w != "with"] == kept for new in reworded)
    assert len(set(reworded)) > 50
    assert reword_query(query, rng, 0.0) == text


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("the kidney on the left.", "left."),
        ("the left-sided kidney", "left-sided"),
        ("the kidney (right)", "(right)"),
        ("is it without, or with it", "without,"),
        ("the KIDNEYS' rims", "KIDNEYS'"),
    ],
)
def test_rewording_keeps_a_word_that_decides_beside_a_sign(text, word):
    rng = np.random.default_rng(0)
    reworded = [reword_query(Query(text), rng, 1.0, 0.9) for _ in range(200)]
    assert all(word in new.split() for new in reworded)
    assert any("the" not in new.split() or "it" not in new.split() for new in reworded)


OPPOSITES = [
    ("left kidney", "right kidney"),
    ("kidney with lesion", "kidney without lesion"),
    ("larger kidney", "smaller kidney"),
    ("higher kidney", "lower kidney"),
    ("largest {name}", "smallest {name}"),
    ("highest {name}", "lowest {name}"),
    ("{organ} with {name}", "{organ} without {name}"),
    ("{organ}: largest {name}", "{organ}: smallest {name}"),
    ("{organ}: highest {name}", "{organ}: lowest {name}"),
]


@pytest.mark.parametrize("pair", OPPOSITES)
def test_rewording_never_makes_opposites_alike(pair):
    folder = files("medvol.queries")
    banks = [yaml.safe_load((folder / name).read_text()) for name in ("query_bank.yaml", "relation_bank.yaml")]
    bank = banks[0] | banks[1]
    ours, theirs = ([set(text.split()) for texts in bank[name]["training"].values() for text in texts] for name in pair)
    for one, other in itertools.product(ours, theirs):
        assert not (one & KEPT_WORDS <= other and other & KEPT_WORDS <= one), (one, other)


def bank_queries():
    """Every training phrasing, patterns filled with two names that stand for others."""
    bank = QueryBank.load(RELEASE_BANK)
    fill = {"{name}": "kidney tumour", "{organ}": "left kidney", "{other}": "cyst"}
    for target in [*bank.targets, *bank.patterns]:
        for letters, name in fill.items():
            target = target.replace(letters, name)
        yield from bank.phrasings(target, held_out=False)


def test_rewording_never_drops_the_name_of_the_target():
    """``the pancreas`` became ``the``, as did ``the gallbladder``, and one text was taught with two answers."""
    rng = np.random.default_rng(0)
    queries = [query for query in bank_queries() if set(query.target.split()) <= set(query.text.split())]
    queries += [Query(f"the {name}", name) for name in ("pancreas", "gallbladder", "vertebra L4", "left lung", "bone")]
    assert len(queries) > 50
    for query in queries:
        for _ in range(20):
            new = reword_query(query, rng, 1.0, 0.9).split()
            naming = [word for word in query.target.split() if word not in FILLERS]
            assert all(word in new for word in naming), (query.text, new)


def test_a_description_keeps_half_of_what_it_says_and_an_unknown_query_all_of_it():
    rng = np.random.default_rng(0)
    described = Query("the organ that produces bile for digestion", "liver")
    counts = Counter(
        len({"organ", "produces", "bile", "for", "digestion"} & set(reword_query(described, rng, 1.0, 0.9).split()))
        for _ in range(300)
    )
    assert min(counts) == 3
    assert counts[3] > 0
    for _ in range(100):
        assert {"mass", "near", "hilum"} <= set(reword_query(Query("the mass near the hilum"), rng, 1.0, 0.9).split())
