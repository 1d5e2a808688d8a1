"""Model folders that are damaged, or made to do harm: one sentence, and nothing run, fetched or allocated."""

import json
import os
import shutil
import struct

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText, AutoProcessor

from medvol.core.errors import CheckpointError
from medvol.core.sidecar import SIDECAR
from medvol.policies.tiny import TinyPolicy


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """Folder of a tiny model, as medvol writes it."""
    folder = tmp_path_factory.mktemp("sound") / "model"
    TinyPolicy(seed=1).save(folder)
    return folder


@pytest.fixture
def folder(sound, tmp_path):
    """A copy without the list of hashes, as a folder from elsewhere would be."""
    copy = tmp_path / "model"
    shutil.copytree(sound, copy)
    sidecar = json.loads((copy / SIDECAR).read_text())
    del sidecar["files"]
    (copy / SIDECAR).write_text(json.dumps(sidecar))
    return copy


def load(folder):
    return TinyPolicy(model=str(folder)).load()


def edit(folder, name, change):
    content = json.loads((folder / name).read_text())
    change(content)
    (folder / name).write_text(json.dumps(content))


def edit_weights(folder, change):
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors", {"format": "pt"})


def edit_header(folder, change):
    """Rewrite the header of the weights and leave the numbers."""
    content = (folder / "model.safetensors").read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])


def first(content):
    return next(name for name in sorted(content) if "layers.1" in name)


def drop_layer(state):
    for name in [name for name in state if "language_model.layers.2." in name]:
        del state[name]


def nest(key):
    return json.dumps({key: 0}).replace("0", "[" * 100_000 + "]" * 100_000)


def split(folder, shard):
    """Name the weights by an index, in a file of that name."""
    state = load_file(folder / "model.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(state, shard)}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def replace(folder, name, content):
    (folder / name).unlink()
    (folder / name).write_bytes(content)


EMPTY = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}


def hide(folder, index, shard):
    """Name other weights, by an index of another name."""
    state = load_file(folder / "model.safetensors")
    save_file(state, folder / shard, {"format": "pt"})
    (folder / index).write_text(json.dumps({"metadata": {}, "weight_map": dict.fromkeys(state, shard)}))
    edit(folder, "config.json", lambda c: c.update(transformers_weights=index))


def share(folder):
    """Two shards that both hold one tensor, with other numbers."""
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    shards = {"1.safetensors": state, "2.safetensors": {first(state): torch.zeros_like(state[first(state)])}}
    for name, tensors in shards.items():
        save_file(tensors, folder / name, {"format": "pt"})
    index = {"metadata": {}, "weight_map": {**dict.fromkeys(state, "1.safetensors"), first(state): "2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def text(**settings):
    return lambda config: config["text_config"].update(settings)


def vision(**settings):
    return lambda config: config["vision_config"].update(settings)


def images(**settings):
    return lambda processor: processor["image_processor"].update(settings)


def sizes(least):
    return {"shortest_edge": least, "longest_edge": 2**40}


def exchange_image_and_video(tokenizer):
    other = {"<|image_pad|>": "<|video_pad|>", "<|video_pad|>": "<|image_pad|>"}
    for token in tokenizer["added_tokens"]:
        token["content"] = other.get(token["content"], token["content"])
    words = tokenizer["model"]["vocab"]
    words["<|image_pad|>"], words["<|video_pad|>"] = words["<|video_pad|>"], words["<|image_pad|>"]


DAMAGE = {
    "no weights": lambda f: (f / "model.safetensors").unlink(),
    "a tensor is missing": lambda f: edit_weights(f, lambda s: s.pop(first(s))),
    "a layer is missing": lambda f: edit_weights(f, drop_layer),
    "a tensor too many": lambda f: edit_weights(f, lambda s: s.update(extra=torch.zeros(3))),
    "a tensor of another shape": lambda f: edit_weights(f, lambda s: s.update({first(s): torch.zeros(3, 3)})),
    "a tensor of another name": lambda f: edit_weights(f, lambda s: s.update({"x" + first(s): s.pop(first(s))})),
    "weights are cut": lambda f: os.truncate(f / "model.safetensors", 1000),
    "weights are empty": lambda f: os.truncate(f / "model.safetensors", 0),
    "weights are a pickle": lambda f: torch.save({"a": 1}, f / "model.safetensors"),
    "a header of 2 ** 60 bytes": lambda f: replace(f, "model.safetensors", struct.pack("<Q", 2**60) + b"{}"),
    "a shape of 10 ** 15": lambda f: edit_header(f, lambda h: h[first(h)].update(shape=[10**15])),
    "a negative shape": lambda f: edit_header(f, lambda h: h[first(h)].update(shape=[-1])),
    "an offset beyond the end": lambda f: edit_header(f, lambda h: h[first(h)].update(data_offsets=[0, 10**12])),
    "a header that is a list": lambda f: replace(f, "model.safetensors", struct.pack("<Q", 2) + b"[]"),
    "weights are a folder": lambda f: ((f / "model.safetensors").unlink(), (f / "model.safetensors").mkdir()),
    "weights are a pipe": lambda f: ((f / "model.safetensors").unlink(), os.mkfifo(f / "model.safetensors")),
    "a million layers": lambda f: edit(f, "config.json", text(num_hidden_layers=10**9)),
    "fewer layers": lambda f: edit(f, "config.json", text(num_hidden_layers=3)),
    "a wide network": lambda f: edit(f, "config.json", text(hidden_size=10**6)),
    "a vocabulary of 10 ** 12": lambda f: edit(f, "config.json", text(vocab_size=10**12)),
    "a vision tower of 10 ** 5": lambda f: edit(f, "config.json", vision(hidden_size=10**5)),
    "no heads": lambda f: edit(f, "config.json", text(num_attention_heads=0)),
    "a size in words": lambda f: edit(f, "config.json", text(hidden_size="large")),
    "a size below 0": lambda f: edit(f, "config.json", text(hidden_size=-192)),
    "a part that is null": lambda f: edit(f, "config.json", lambda c: c.update(vision_config=None)),
    "a part that is a list": lambda f: edit(f, "config.json", lambda c: c.update(text_config=[1])),
    "another kind of model": lambda f: edit(f, "config.json", lambda c: c.update(model_type="bert")),
    "no kind of model": lambda f: edit(f, "config.json", lambda c: c.pop("model_type")),
    "a kind that is a list": lambda f: edit(f, "config.json", lambda c: c.update(model_type=["qwen3_vl"])),
    "quantised weights": lambda f: edit(f, "config.json", lambda c: c.update(quantization_config={"bits": 4})),
    "a kernel by name": lambda f: edit(f, "config.json", lambda c: c.update(_attn_implementation="evil/kernel")),
    "a kernel for a part": lambda f: edit(f, "config.json", text(_attn_implementation="evil/kernel@main:run")),
    "deep configuration": lambda f: replace(f, "config.json", nest("model_type").encode()),
    "a number of 6,000 digits": lambda f: replace(f, "config.json", b'{"model_type": ' + b"9" * 6000 + b"}"),
    "configuration is a list": lambda f: replace(f, "config.json", b"[]"),
    "configuration is no text": lambda f: replace(f, "config.json", b"\xff\xfe\x00"),
    "adapters": lambda f: (f / "adapter_config.json").write_text('{"base_model_name_or_path": "evil/model"}'),
    "a shard outside": lambda f: split(f, "../other.safetensors"),
    "a shard by its whole path": lambda f: split(f, "/etc/passwd"),
    "a shard that is not there": lambda f: split(f, "model-00001-of-00002.safetensors"),
    "an index of numbers": lambda f: (f / "model.safetensors.index.json").write_text('{"weight_map": {"a": 3}}'),
    "an index that is a list": lambda f: (f / "model.safetensors.index.json").write_text("[]"),
    "weights under another name": lambda f: hide(f, "other.safetensors.index.json", "../other.safetensors"),
    "a tensor in two shards": lambda f: share(f),
    "a tensor of integers": lambda f: edit_weights(f, lambda s: s.update({first(s): s[first(s)].to(torch.int8)})),
    "a tensor of complex numbers": lambda f: edit_weights(f, lambda s: s.update({first(s): s[first(s)] * 1j})),
    "a shape of 200,000 axes": lambda f: edit_header(f, lambda h: h[first(h)].update(shape=[10**9] * 200_000)),
    "100,000 empty tensors": lambda f: edit_header(f, lambda h: h.update(dict.fromkeys(map(str, range(10**5)), EMPTY))),
    "configuration of 3 MB": lambda f: edit(f, "config.json", lambda c: c.update(names=["x"] * 10**6)),
    "JSON of a million lists": lambda f: (f / "extra.json").write_text("[" + "[]," * 10**6 + "[]]"),
    "no tokenizer": lambda f: (f / "tokenizer.json").unlink(),
    "deep tokenizer": lambda f: replace(f, "tokenizer.json", nest("model").encode()),
    "tokenizer without a model": lambda f: edit(f, "tokenizer.json", lambda t: t.pop("model")),
    "tokenizer of another kind": lambda f: edit(f, "tokenizer.json", lambda t: t["model"].update(type="Evil")),
    "tokenizer with more words": lambda f: edit(
        f, "tokenizer.json", lambda t: t["model"]["vocab"].update({f"w{i}": 10**5 + i for i in range(9)})
    ),
    "tokenizer of another order": lambda f: edit(f, "tokenizer.json", exchange_image_and_video),
    "no processor": lambda f: (f / "processor_config.json").unlink(),
    "a processor of no images": lambda f: edit(f, "processor_config.json", lambda p: p.pop("image_processor")),
    "a processor of another kind": lambda f: edit(
        f, "processor_config.json", lambda p: p.update(processor_class="Evil")
    ),
    "a least size of 10 ** 10": lambda f: edit(f, "processor_config.json", images(size=sizes(10**10))),
    "a least size below 0": lambda f: edit(f, "processor_config.json", images(size=sizes(-1))),
    "no patches": lambda f: edit(f, "processor_config.json", images(patch_size=0)),
    "a chat template of another model": lambda f: (f / "chat_template.jinja").write_text("{{ messages[0].content }}"),
    "a chat template that raises": lambda f: (f / "chat_template.jinja").write_text("{{ raise_exception('no') }}"),
    "a chat template without end": lambda f: (f / "chat_template.jinja").write_text("{% for"),
    "no chat template": lambda f: (f / "chat_template.jinja").unlink(),
    "template of another type": lambda f: edit(f, SIDECAR, lambda s: s.update(template=[1])),
    "template with 10 ** 9 slices": lambda f: edit(f, SIDECAR, lambda s: s["template"].update(num_slices=10**9)),
    "template of words": lambda f: edit(f, SIDECAR, lambda s: s["template"].update(height_px="96")),
    "template with no tag": lambda f: edit(f, SIDECAR, lambda s: s["template"].update(slice_tag=7)),
    "template with two windows": lambda f: edit(f, SIDECAR, lambda s: s["template"].update(windows=["lung", "bone"])),
    "template with an unknown window": lambda f: edit(f, SIDECAR, lambda s: s["template"].update(windows=["a"] * 3)),
    "sidecar is a list": lambda f: replace(f, SIDECAR, b"[]"),
    "deep sidecar": lambda f: replace(f, SIDECAR, nest("template").encode()),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_folder_is_refused(folder, damage):
    damage(folder)
    with pytest.raises(CheckpointError) as refusal:
        load(folder)
    assert "model" in str(refusal.value)
    assert len(str(refusal.value)) < 1000


def test_two_shards_load(folder):
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    places = {name: f"{index % 2}.safetensors" for index, name in enumerate(state)}
    for shard in ("0.safetensors", "1.safetensors"):
        tensors = {name: state[name] for name, place in places.items() if place == shard}
        save_file(tensors, folder / shard, {"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    assert load(folder) is not None


def test_a_folder_from_elsewhere_loads(folder):
    assert load(folder) is not None


def test_code_in_a_folder_is_neither_run_nor_asked_for(folder, monkeypatch):
    (folder / "evil.py").write_text(f"open({str(folder / 'canary')!r}, 'w')")
    edit(folder, "config.json", lambda c: c.update(auto_map={"AutoConfig": "evil.C", "AutoModel": "evil.M"}))
    edit(folder, "tokenizer_config.json", lambda c: c.update(auto_map={"AutoTokenizer": ["evil.T", None]}))
    monkeypatch.setattr("builtins.input", lambda *words: pytest.fail("it asked"))
    assert load(folder) is not None
    assert not (folder / "canary").exists()


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "generation_config.json", "model.safetensors"])
def test_one_changed_byte_is_noticed(sound, tmp_path, name):
    copy = tmp_path / "model"
    shutil.copytree(sound, copy)
    content = bytearray((copy / name).read_bytes())
    place = content.rfind(b"\n") if name.endswith(".json") else len(content) - 1
    content[place] = 32 if name.endswith(".json") else content[place] ^ 1
    (copy / name).write_bytes(content)
    with pytest.raises(CheckpointError, match="not as medvol wrote it"):
        load(copy)


def test_the_list_leaves_out_what_people_write(sound, tmp_path):
    copy = tmp_path / "model"
    shutil.copytree(sound, copy)
    (copy / "README.md").write_text("mine")
    assert load(copy) is not None
    listed = set(json.loads((copy / SIDECAR).read_text())["files"])
    assert listed == {path.name for path in sound.iterdir()} - {SIDECAR}
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= listed


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "processor_config.json"])
def test_code_of_a_folder_is_never_run_nor_asked_for(folder, name, monkeypatch):
    """It opens by transformers' own classes; nobody is asked."""
    (folder / "evil.py").write_text("raise SystemExit('this was run')")
    kinds = ("AutoConfig", "AutoModelForImageTextToText", "AutoProcessor", "AutoImageProcessor")
    code = dict.fromkeys(kinds, "evil.Evil") | {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}
    edit(folder, name, lambda content: content.update(auto_map=code))
    monkeypatch.setattr("builtins.input", lambda *args: pytest.fail("it asked"))
    assert type(load(folder).processor).__module__.startswith("transformers.")


def test_a_saved_folder_opens_in_plain_transformers(sound):
    network = load(sound)
    processor = AutoProcessor.from_pretrained(sound)
    assert processor.image_processor.patch_size == 12
    assert processor.chat_template == network.processor.chat_template
    assert type(AutoModelForImageTextToText.from_pretrained(sound)) is type(network.model)
