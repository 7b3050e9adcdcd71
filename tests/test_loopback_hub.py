"""The stand-in for the hub, against the real client: what the other tests build on."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, hf_hub_download, snapshot_download
from huggingface_hub import errors as hf
from loopback_hub import LoopbackHub

VIDEO = bytes(range(256)) * 400


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    with LoopbackHub(page_size=2) as hub:
        yield hub


def adds(**files: bytes) -> list[CommitOperationAdd]:
    return [CommitOperationAdd(path_in_repo=k.replace("__", "."), path_or_fileobj=v) for k, v in files.items()]


def test_create_commit_look_and_download(hub: LoopbackHub, tmp_path: Path) -> None:
    api = HfApi(endpoint=hub.url, token=hub.token("owner"))
    assert api.whoami()["name"] == "owner"
    assert str(api.create_repo("org/clips", repo_type="dataset")).endswith("/datasets/org/clips")
    with pytest.raises(hf.HfHubHTTPError):
        api.create_repo("org/clips", repo_type="dataset")
    api.create_repo("org/clips", repo_type="dataset", exist_ok=True)
    files = adds(README__md=b"---\nlicense: mit\n---\n# hi\n", a__mp4=VIDEO, b__mp4=VIDEO[1:], c__txt=b"words")
    done = api.create_commit("org/clips", files, commit_message="first", repo_type="dataset")
    assert api.dataset_info("org/clips").sha == done.oid
    tree = {f.path: f for f in api.list_repo_tree("org/clips", repo_type="dataset", recursive=True)}
    assert set(tree) == {"README.md", "a.mp4", "b.mp4", "c.txt"}  # over several pages
    assert tree["a.mp4"].lfs is not None
    assert tree["c.txt"].lfs is None
    got = snapshot_download(
        "org/clips", repo_type="dataset", revision=done.oid, endpoint=hub.url, cache_dir=tmp_path, token=False
    )
    assert (Path(got) / "a.mp4").read_bytes() == VIDEO
    # the same bytes again are no upload, and no commit
    before = len([r for r in hub.requests if r[0] == "PUT"])
    again = api.create_commit("org/clips", adds(a__mp4=VIDEO), commit_message="again", repo_type="dataset")
    assert again.oid == done.oid
    assert len([r for r in hub.requests if r[0] == "PUT"]) == before
    with pytest.raises(ValueError, match=r"(?i)metadata"):
        api.create_commit("org/clips", adds(README__md=b"---\n[\n---\n"), commit_message="x", repo_type="dataset")


def test_pull_request_by_somebody_else(hub: LoopbackHub, tmp_path: Path) -> None:
    hub.create("org/results")
    hub.commit("org/results", {"README.md": b"# results\n"})
    guest = HfApi(endpoint=hub.url, token=hub.token("guest"))
    entry = adds(entry__json=b"{}")
    with pytest.raises(hf.HfHubHTTPError, match="403"):
        guest.create_commit("org/results", entry, commit_message="mine", repo_type="dataset")
    done = guest.create_commit(
        "org/results", adds(entry__json=b"{}"), commit_message="mine", repo_type="dataset", create_pr=True
    )
    assert done.pr_revision == "refs/pr/1"
    repo = hub.repos["dataset", "org/results"]
    assert repo.file("entry.json", "refs/pr/1") == b"{}"
    assert "entry.json" not in repo.at().files
    more = [CommitOperationDelete("README.md")]
    guest.create_commit("org/results", more, commit_message="more", repo_type="dataset", revision="refs/pr/1")
    read = hf_hub_download(
        "org/results", "entry.json", repo_type="dataset", revision="refs/pr/1", endpoint=hub.url, cache_dir=tmp_path
    )
    assert Path(read).read_bytes() == b"{}"
    assert [d.title for d in guest.get_repo_discussions("org/results", repo_type="dataset")] == ["mine"]
    hub.merge("org/results", 1)
    assert repo.file("entry.json") == b"{}"
    assert set(repo.at().files) == {"entry.json"}
    assert repo.pulls[0].status == "merged"


def test_errors_are_the_clients_own_kinds(hub: LoopbackHub, tmp_path: Path) -> None:
    hub.create("org/secret", private=True)
    sha = hub.commit("org/secret", {"a.txt": b"1"})
    nobody, guest = HfApi(endpoint=hub.url, token=False), HfApi(endpoint=hub.url, token=hub.token("guest"))
    owner = HfApi(endpoint=hub.url, token=hub.token("owner"))
    for api in (nobody, guest):
        with pytest.raises(hf.RepositoryNotFoundError):
            api.dataset_info("org/secret")
    with pytest.raises(hf.RepositoryNotFoundError):
        owner.dataset_info("org/none")
    with pytest.raises(hf.RevisionNotFoundError):
        owner.dataset_info("org/secret", revision="0" * 40)
    with pytest.raises(hf.RemoteEntryNotFoundError):
        owner.hf_hub_download("org/secret", "b.txt", repo_type="dataset", revision=sha, cache_dir=tmp_path)
    with pytest.raises(hf.HfHubHTTPError, match="401"):
        HfApi(endpoint=hub.url, token="hf_wrong").dataset_info("org/secret")
    owner.create_tag("org/secret", tag="v1", repo_type="dataset")
    hub.commit("org/secret", {"a.txt": b"2"})
    assert owner.dataset_info("org/secret", revision="v1").sha == sha
    assert [t.name for t in owner.list_repo_refs("org/secret", repo_type="dataset").tags] == ["v1"]
    with pytest.raises(hf.HfHubHTTPError, match="412"):
        owner.create_commit("org/secret", adds(a__txt=b"3"), commit_message="x", repo_type="dataset", parent_commit=sha)


def test_a_broken_connection_is_resumed_by_range(hub: LoopbackHub, tmp_path: Path) -> None:
    hub.create("org/clips")
    sha = hub.commit("org/clips", {"a.mp4": VIDEO})
    hub.break_after("a.mp4", 1000)
    got = hf_hub_download(
        "org/clips", "a.mp4", repo_type="dataset", revision=sha, endpoint=hub.url, cache_dir=tmp_path, token=False
    )
    assert Path(got).read_bytes() == VIDEO
    assert len([r for r in hub.requests if r[0] == "GET" and r[1].endswith("a.mp4")]) == 2


def test_load_dataset_streams_a_hosted_table(hub: LoopbackHub, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"id": ["a", "b"], "offset_s": [0.2, -0.4]}), buffer)
    card = b"---\nconfigs:\n- config_name: rows\n  data_files:\n  - split: test\n    path: rows.parquet\n---\n"
    hub.create("org/rows")
    sha = hub.commit("org/rows", {"README.md": card, "rows.parquet": buffer.getvalue()})
    code = (
        "import datasets\n"
        f"d = datasets.load_dataset('org/rows', 'rows', revision='{sha}', split='test', streaming=True)\n"
        "print([r['offset_s'] for r in d])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], env=hub.env(tmp_path), capture_output=True, text=True)
    assert done.stdout == "[0.2, -0.4]\n", done.stderr


def test_a_stopped_hub_answers_nobody(hub: LoopbackHub) -> None:
    hub.create("org/rows")
    api = HfApi(endpoint=hub.url, token=False)
    api.dataset_info("org/rows")
    hub.stop()
    with pytest.raises(Exception, match=r"(?i)connect|refused|disconnected|reset"):
        api.dataset_info("org/rows")
