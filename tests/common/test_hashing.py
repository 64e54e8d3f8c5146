import shutil

from small_factory import captioner_of

from caploom.captioning.identity import captioner_fingerprint
from caploom.common.hashing import content_version, fingerprint


def captioner(**changes):
    return captioner_of({"model": "some/model", "prompt": "Describe:", **changes})


def test_the_order_of_keys_does_not_matter_and_every_value_does():
    assert fingerprint({"a": 1, "b": [2]}) == fingerprint({"b": [2], "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})


def test_rows_cannot_be_confused_with_their_concatenation():
    assert content_version(["ab", "c"]) != content_version(["a", "bc"])


def test_all_that_decides_the_text_changes_the_fingerprint():
    changes = [
        {},
        {"prompt": "Tell me:"},
        {"revision": "abc"},
        {"seed": 1},
        {"dtype": "float16"},
        {"decoding": {"max_new_tokens": 31}},
        {"decoding": {"sample": True}},
        {"model": "other/model"},
    ]
    assert len({captioner_fingerprint(captioner(**change)) for change in changes}) == len(changes)


def test_what_only_decides_the_speed_does_not():
    assert captioner_fingerprint(captioner(batch_size=8, device="cuda")) == captioner_fingerprint(captioner())


def test_of_a_local_model_the_content_counts_and_not_its_place(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "model.safetensors").write_bytes(b"weights")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    here, there = (captioner_fingerprint(captioner(model=str(tmp_path / name))) for name in "ab")
    assert here == there
    (tmp_path / "b" / "model.safetensors").write_bytes(b"others!")
    assert captioner_fingerprint(captioner(model=str(tmp_path / "b"))) != here
