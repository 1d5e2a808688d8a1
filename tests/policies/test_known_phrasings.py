"""Queries in words that training never met: a sentence encoder reads them, and a phrasing that is known is asked."""

import logging

import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, BertTokenizerFast

from medvol.core.errors import CheckpointError, MissingExtraError, QueryError
from medvol.core.training_data import TrainingData
from medvol.core.types import Query
from medvol.core.words import split_words
from medvol.policies import sentence_encoder
from medvol.policies.known_phrasings import KnownPhrasings
from medvol.policies.sentence_encoder import SentenceEncoder
from medvol.policies.tiny import TinyPolicy
from medvol.queries.query_bank import RELEASE_BANK, QueryBank

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "spleen", "liver", "organ"]


def write_encoder(folder, seed=0):
    """A BERT of one layer with a vocabulary of eight words."""
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    BertTokenizerFast(tokenizer_object=tokenizer, model_max_length=32).save_pretrained(folder)
    torch.manual_seed(seed)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=len(WORDS), max_position_embeddings=32, **sizes)).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return write_encoder(tmp_path_factory.mktemp("encoder"))


def test_a_special_token_in_a_query_is_text(encoder):
    """Each of its three parts is a word that the vocabulary does not hold, as those of ``[qqq]`` are."""
    read = SentenceEncoder(encoder).read
    assert torch.equal(read(["the liver [SEP]"]), read(["the liver [qqq]"]))


class Table:
    """Stands for an encoder: gives every sentence the vector that a test says."""

    def __init__(self, **vectors):
        self.vectors = {text.replace("_", " "): torch.tensor(vector) for text, vector in vectors.items()}

    def read(self, sentences):
        return torch.nn.functional.normalize(torch.stack([self.vectors[text] for text in sentences]), dim=-1)


BANK = QueryBank(
    {
        "liver": [Query("the liver", "liver", "explicit"), Query("the bile organ", "liver", "implicit")],
        "spleen": [Query("the spleen", "spleen", "explicit")],
        "liver held out": [Query("hepar", "liver held out", "implicit", held_out=True)],
    }
)


def reader(known=("the", "liver", "bile", "organ"), **asked):
    table = Table(the_liver=[1.0, 0.0, 0.0], the_bile_organ=[0.8, 0.6, 0.0], the_spleen=[0.0, 0.0, 1.0], **asked)
    return KnownPhrasings(table, BANK, known)


def test_a_query_of_known_words_is_asked_as_it_is():
    assert reader().say("Organ, the bile LIVER!") == "Organ, the bile LIVER!"


def test_an_unheard_query_is_asked_in_the_nearest_known_phrasing_and_says_so(caplog):
    words = reader(hepar=[0.7, 0.7, 0.0])
    with caplog.at_level(logging.WARNING):
        assert words.say("hepar") == words.say("hepar") == "the bile organ"
    assert caplog.messages == ["training did not meet all words of 'hepar'; it is asked as 'the bile organ'"]


def test_phrasings_with_unknown_words_vote_and_are_never_asked():
    words = reader(known=("the", "liver"), hepar=[0.7, 0.7, 0.0])
    assert words.nearest("hepar") == ("liver", "the liver")


def test_what_the_policy_was_not_taught_is_asked_as_it_is(caplog):
    words = reader(lien=[0.0, 0.1, 1.0])
    with caplog.at_level(logging.WARNING):
        assert words.say("lien") == "lien"
    assert caplog.messages == ["'lien' seems to mean spleen, which the policy was not taught; it is asked as it is"]


def test_a_target_of_which_few_phrasings_are_known_was_not_taught():
    bank = QueryBank({"spleen": [Query(text, "spleen", "explicit") for text in ("the liver spleen", "lien", "milt")]})
    table = Table(the_liver_spleen=[1.0, 0.0], lien=[1.0, 0.0], milt=[1.0, 0.0], new=[1.0, 0.0])
    assert KnownPhrasings(table, bank, ["the", "liver", "spleen"]).nearest("new") == ("spleen", None)
    assert KnownPhrasings(table, bank, ["the", "lien", "liver", "spleen"]).nearest("new")[1] == "the liver spleen"


def test_two_phrasings_that_are_rather_near_outvote_one_that_is_nearest():
    """exp(10 * 0.8) + exp(10 * 0.8) > exp(10 * 0.85), worked out by hand."""
    bank = QueryBank(
        {
            "a": [Query("one", "a", "implicit"), Query("two", "a", "implicit")],
            "b": [Query("three", "b", "implicit")],
        }
    )
    vectors = {"one": [0.8, 0.6, 0.0], "two": [0.8, -0.6, 0.0], "three": [0.85, 0.0, 0.526783], "new": [1.0, 0.0, 0.0]}
    assert KnownPhrasings(Table(**vectors), bank, None).nearest("new")[0] == "a"


def test_a_sentence_is_the_direction_of_the_mean_of_its_last_states(encoder):
    model = BertModel.from_pretrained(encoder).eval()
    with torch.no_grad():
        mean = model(torch.tensor([[2, 4, 6, 3]])).last_hidden_state[0].mean(0)
    found = SentenceEncoder(encoder).read(["the LIVER", "organ"])
    torch.testing.assert_close(found[0], mean / mean.norm())
    torch.testing.assert_close(found[1], SentenceEncoder(encoder).read(["organ"])[0])


def test_a_policy_with_words_tokenises_the_known_phrasing(encoder):
    plain, policy = TinyPolicy().load(), TinyPolicy(words=encoder)
    bank = QueryBank.load(RELEASE_BANK)
    policy.training_data = TrainingData(words={word for text in bank.texts() for word in split_words(text)})
    said = KnownPhrasings(SentenceEncoder(encoder), bank, policy.training_data.words).say("lien")
    assert said in bank.texts(held_out=False)
    assert policy.load().encode_query("lien") == plain.encode_query(said)
    assert policy.load().encode_query("the spleen") == plain.encode_query("the spleen")


def test_a_query_is_understood_within_mixed_precision(encoder):
    plain, mixed = (TinyPolicy(words=encoder) for _ in range(2))
    prompt = "please show me the zorp"
    expected = plain.load().encode_query(prompt)
    with torch.autocast("cpu", torch.bfloat16):
        assert mixed.load().encode_query(prompt) == expected


def test_training_teaches_the_words_themselves(encoder, caplog):
    plain, policy = TinyPolicy().load(), TinyPolicy(words=encoder)
    bank = QueryBank.load(RELEASE_BANK)
    policy.training_data = TrainingData(words={word for text in bank.texts() for word in split_words(text)})
    assert policy.load().encode_query("lien") != plain.encode_query("lien")
    assert policy.load_for_training().encode_query("lien") == plain.encode_query("lien")
    assert "in training, every query is asked as it is" in caplog.text


def test_a_saved_policy_keeps_its_encoder_and_says_so(encoder, tmp_path):
    policy = TinyPolicy(words=encoder)
    assert policy.folder_settings() == {"words": encoder}
    assert TinyPolicy().folder_settings() == {}
    assert policy.identity()["words"] == sentence_encoder.encoder_sha256(encoder)
    assert "words" not in TinyPolicy().identity()
    assert policy.identity()["words"] != TinyPolicy(words=write_encoder(tmp_path, seed=1)).identity()["words"]


def test_without_the_extra_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(sentence_encoder, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r'pip install "medvol-r1\[words\]"'):
        TinyPolicy(words="minilm").require_ready()


def test_other_weights_under_the_name_of_the_published_ones_are_refused(monkeypatch, encoder, tmp_path):
    (tmp_path / "model").symlink_to(encoder)
    spec = type("Spec", (), {"origin": str(tmp_path / "__init__.py")})
    monkeypatch.setattr(sentence_encoder, "find_spec", lambda name: spec)
    with pytest.raises(CheckpointError, match="is not of all-MiniLM-L6-v2 as published"):
        TinyPolicy(words="minilm").require_ready()


def test_what_is_no_encoder_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="there is no folder"):
        TinyPolicy(words=str(tmp_path / "nothing")).require_ready()
    TinyPolicy().save(tmp_path / "model")
    with pytest.raises(CheckpointError, match="words takes a 'bert' encoder"):
        TinyPolicy(words=str(tmp_path / "model")).require_ready()


def test_a_damaged_encoder_is_refused(encoder, tmp_path):
    folder = tmp_path / "cut"
    folder.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((sentence_encoder.find_encoder(encoder) / name).read_bytes())
    (folder / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(CheckpointError, match="is cut or is no safetensors file"):
        SentenceEncoder(str(folder))


def test_a_query_that_is_too_long_is_refused(encoder):
    with pytest.raises(QueryError, match="a query has 42 tokens, and the encoder reads 32; shorten it"):
        SentenceEncoder(encoder).read(["liver " * 40])
