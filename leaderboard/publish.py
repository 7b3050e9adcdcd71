"""Publish a built site as a static Space of the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path

import yaml

from avbench.data.hub import HubRepo
from avbench.leaderboard.site import DATA, INDEX
from avbench.types import UsageError

README = "README.md"
KEPT = (".gitattributes",)  # the hub's own file in a repository
MAX_FILES = 20_000


def publish(site: Path, space: str, title: str = "avbench leaderboard", endpoint: str | None = None) -> str:
    """Sends the files of a site, with a README that makes it a static page, in one commit; returns the Space's address.
    Files of an earlier site that are gone are removed. ``endpoint``: another hub.

    ``UsageError``: not a site, or no name of a Space; ``AvbenchError``: the hub refuses or cannot be reached.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    repo = HubRepo(space, endpoint)
    files = site_files(site)
    adds = {path: CommitOperationAdd(path, str(file)) for path, file in files.items()}
    adds[README] = CommitOperationAdd(README, card(title).encode())
    with repo.client() as api:
        address = api.create_repo(space, repo_type="space", space_sdk="static", exist_ok=True)
        there = api.list_repo_files(space, repo_type="space")
        gone = [CommitOperationDelete(path) for path in there if path not in adds and path not in KEPT]
        api.create_commit(space, [*adds.values(), *gone], commit_message=title, repo_type="space")
    return str(address)


def site_files(site: Path) -> dict[str, Path]:
    """Path in the site -> file, of all that `avbench leaderboard build` wrote. ``UsageError`` if none is there."""
    if not (site / INDEX).is_file() or not (site / DATA).is_file():
        raise UsageError(f"{site} is no site; make one with `avbench leaderboard build --out {site}`")
    found = sorted(path for path in site.rglob("*") if path.is_file() and not path.is_symlink())
    found = [path for path in found if not any(part.startswith(".") for part in path.relative_to(site).parts)]
    if len(found) > MAX_FILES:
        raise UsageError(f"{site} has {len(found)} files, more than the {MAX_FILES} of a Space")
    return {path.relative_to(site).as_posix(): path for path in found}


def card(title: str) -> str:
    """The README of the Space: what the hub must know, and one line for people."""
    front = {"title": title, "colorFrom": "blue", "colorTo": "gray", "sdk": "static", "pinned": False}
    text = yaml.safe_dump(front, sort_keys=False, allow_unicode=True)
    return f"---\n{text}---\n\nMade by `avbench leaderboard build`: every score is recomputed from predictions.\n"
