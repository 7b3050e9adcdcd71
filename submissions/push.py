"""Send a checked submission as a pull request to a dataset repository on the Hugging Face Hub."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avbench.protocol.tracks import BLIND
from avbench.submissions.check import check
from avbench.submissions.format import SUBMISSION_FILE, ValidationError, read_folder, shown
from avbench.submissions.tracks import find
from avbench.system.proxies import proxy_hint, unusable_proxy
from avbench.types import AvbenchError, UsageError

if TYPE_CHECKING:
    from avbench.submissions.format import Folder

ROOT = "submissions"  # folder of the entries in the results repository
REPO = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")  # ORG/NAME on the Hub


def push(folder: Path | str, repo: str, endpoint: str | None = None) -> str:
    """Opens a pull request that adds the submission to dataset repository ``repo`` ("org/name"); returns its address.

    The submission is checked before anything is sent (except the scores of a blind track, which only its maintainers
    can check). The hub's client logs in with HF_TOKEN or ``hf auth login``. ``endpoint``: address of another hub.
    ``UsageError`` for an invalid repository or submission, ``AvbenchError`` if the hub refuses or cannot be reached.
    """
    if not REPO.fullmatch(repo):
        raise UsageError(f"repository is {repo!r}; it must be ORG/NAME")
    if endpoint is not None and not re.match(r"https?://", endpoint):
        raise UsageError(f"endpoint is {endpoint!r}; it must begin with https:// or http://")
    read = _checked(folder)
    if problem := unusable_proxy():
        raise AvbenchError(problem)
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.utils import logging

    logging.set_verbosity_error()  # errors are raised and reported below
    api = HfApi(endpoint=endpoint)
    # asked first: an upload to an unreachable hub is retried for half a minute
    _asked(repo, api.repo_info, repo_id=repo, repo_type="dataset", timeout=30)
    submission = read.submission
    base = f"{ROOT}/{submission.entry}"
    content = {**read.content, SUBMISSION_FILE: (read.path / SUBMISSION_FILE).read_bytes()}
    operations = [CommitOperationAdd(f"{base}/{name}", data) for name, data in sorted(content.items())]
    commit = _asked(
        repo,
        api.create_commit,
        repo_id=repo,
        repo_type="dataset",
        operations=operations,
        commit_message=f"Submission {submission.entry}",
        commit_description=_description(read),
        create_pr=True,
    )
    return str(commit.pr_url)


def _checked(folder: Path | str) -> Folder:
    read = read_folder(folder)
    track = read.submission.track
    if BLIND in track:
        find(track.partition(BLIND)[0])
        return read
    report = check(folder, n_resamples=0)
    if not report.ok:
        raise ValidationError(report.errors)
    return read


def _description(read: Folder) -> str:
    """The text of the pull request; the repository's checker adds the recomputed scores."""
    submission = read.submission
    lines = [f"{name}: {value:.4f}" for name, value in submission.claimed.items() if value is not None]
    return "\n".join([f"signature {submission.run.signature}", "claimed (to be recomputed):", *lines])


def _asked(repo: str, call: Any, **arguments: Any) -> Any:
    """The hub's answer; a refusal becomes one line that says what to do."""
    from huggingface_hub import errors

    try:
        return call(**arguments)
    except errors.RepositoryNotFoundError as error:
        status = getattr(error.response, "status_code", 0)
        login = "; log in with `hf auth login` or set HF_TOKEN" if status == 401 else ""
        raise AvbenchError(f"there is no dataset repository {repo}, or you may not read it{login}") from error
    except errors.OfflineModeIsEnabled as error:
        raise AvbenchError("HF_HUB_OFFLINE is set, but pushing needs the hub: unset it") from error
    except errors.LocalTokenNotFoundError as error:
        raise AvbenchError("you are not logged in: run `hf auth login` or set HF_TOKEN") from error
    except errors.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", 0)
        advice = {
            401: "log in with `hf auth login` or set HF_TOKEN",
            403: "your token may not open pull requests there: it needs permission to write discussions",
            412: "someone pushed at the same time: try again",
            429: "too many requests: try again later",
        }.get(status, shown(error.server_message or str(error), 200))
        raise AvbenchError(f"the hub refused the pull request on {repo} ({status}): {advice}") from error
    except (OSError, ValueError, getattr(errors, "HTTPError", OSError)) as error:  # raised by the client's transport
        reason = shown(str(error), 200) or type(error).__name__
        raise AvbenchError(f"the hub cannot be reached: {reason}{proxy_hint()}") from error
