"""Artifacts found by what people call them."""

import json
from pathlib import Path

import pytest

from caploom.errors import StoreError
from caploom.stages.artifact_names import artifact_label, find_artifact
from caploom.storage.manifest import MANIFEST
from caploom.storage.opening import open_store
from caploom.storage.store import Plan, Store


@pytest.fixture
def store(tmp_path):
    """Two shards' captions by two prompts, a sheared shard, and two versions of a recipe's checkpoint."""
    store = open_store(tmp_path / "store")
    for prompt in ("1111222233334444", "5555666677778888"):
        for shard in ("shard-00000", "shard-00001"):
            make(store, "captions", ("llava", prompt, shard), {"prompt": prompt, "shard": shard}, f"12:00:0{prompt[0]}")
    make(store, "sheared", ("llava", "aaaabbbbccccdddd", "shard-00000"), {}, "12:01:00")
    make(store, "raw_pairs", ("eeeeffff00001111", "shard-00000"), {"shard": 0}, "11:00:00")
    make(store, "checkpoint", ("four-captioners",), {"seed": 1}, "13:00:00")
    make(store, "checkpoint", ("four-captioners",), {"seed": 2}, "12:30:00")
    make(store, "ablation_report", (), {}, "14:00:00")
    return store


def make(store, kind, name, configuration, time):
    """An artifact whose making began at a time of one day."""
    plan = Plan(kind=kind, name=name, code_version="1", configuration=configuration)
    artifact = store.make(plan, lambda draft: (draft.folder / "file").write_text("x"))
    path = artifact.folder / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | {"started": f"2026-01-01T{time}+00:00"}))
    return plan


@pytest.mark.parametrize(
    ("text", "label", "configuration"),
    [
        ("captions/llava/shard-00001", "captions/llava [shard-00001]", {"prompt": "5555666677778888"}),
        ("captions/llava [shard-00001]", "captions/llava [shard-00001]", {"prompt": "5555666677778888"}),
        ("captions/llava/1111222233334444/shard-00001", "captions/llava [shard-00001]", {"prompt": "1111222233334444"}),
        ("checkpoint [four-captioners]", "checkpoint [four-captioners]", {"seed": 1}),
        ("checkpoint/four-captioners", "checkpoint [four-captioners]", {"seed": 1}),
        ("  checkpoint/four-captioners/ ", "checkpoint [four-captioners]", {"seed": 1}),
        ("raw_pairs [shard-00000]", "raw_pairs [shard-00000]", {"shard": 0}),
        ("sheared/llava/aaaabbbbccccdddd [shard-00000]", "sheared/llava/aaaabbbbccccdddd [shard-00000]", {}),
        ("sheared/llava [shard-00000]", "sheared/llava/aaaabbbbccccdddd [shard-00000]", {}),
        ("ablation_report", "ablation_report", {}),
    ],
)
def test_a_name_finds_the_newest_that_has_it(store, text, label, configuration):
    manifest = find_artifact(store, text).manifest
    assert artifact_label(manifest) == label
    assert manifest.configuration.items() >= configuration.items()


def test_every_artifact_is_found_by_its_label_address_folder_manifest_and_fingerprint(store, monkeypatch):
    artifacts = store.list()
    assert len(artifacts) == 9
    for artifact in artifacts:
        address, folder = artifact.manifest.address, artifact.folder
        monkeypatch.chdir(folder.parent)
        texts = [address, str(folder), str(folder / MANIFEST), folder.name, f"./{folder.name}/{MANIFEST}"]
        texts += [artifact.manifest.fingerprint, artifact.manifest.fingerprint[:8]]
        assert [find_artifact(store, text).manifest.address for text in texts] == [address] * len(texts)
        assert artifact_label(find_artifact(store, artifact_label(artifact.manifest)).manifest) == artifact_label(
            artifact.manifest
        )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("checkpoint [four-captoiners]", 'did you mean "checkpoint [four-captioners]"'),
        ("captions/llvaa/shard-00000", "did you mean"),
        ("chekpoint [four-captioners]", 'did you mean "checkpoint"'),
        ("0123456789", "No artifact of"),
        ("", "There is no artifact"),
        ("/", "There is no artifact"),
        ("../../etc", "There is no artifact"),
        ("/etc/hostname", "There is no artifact"),
        ("checkpoint/four-captioners/0123456789abcdef", "There is no artifact"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(store, text, said):
    with pytest.raises(StoreError, match="artifact") as refused:
        find_artifact(store, text)
    assert said in str(refused.value)


def test_a_damaged_manifest_says_what_is_wrong(store):
    folder = find_artifact(store, "ablation_report").folder
    (folder / MANIFEST).write_text('{"manifest_version": 7}')
    with pytest.raises(StoreError, match="made by a newer Caploom"):
        find_artifact(store, "ablation_report")


def test_a_store_that_is_empty_or_gone_has_no_artifact(tmp_path):
    for root in (tmp_path, tmp_path / "gone"):
        with pytest.raises(StoreError, match="it has none yet"):
            find_artifact(Store(Path(root)), "checkpoint [a]")
