"""A checked submission -> a pull request on a dataset repository of the Hugging Face hub."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avbench.protocol.tracks import BLIND
from avbench.submissions.check import check
from avbench.submissions.format import SUBMISSION_FILE, ValidationError, read_folder, shown
from avbench.submissions.tracks import find
from avbench.types import AvbenchError, UsageError

if TYPE_CHECKING:
    from avbench.submissions.format import Folder

ROOT = "submissions"  # where entries lie in the results repository
REPO = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")


def push(folder: Path | str, repo: str, endpoint: str | None = None) -> str:
    """Opens a pull request that adds the submission to dataset repository ``repo`` ("org/name"); returns its address.

    What the checker would refuse is refused before anything is sent (the scores of a blind track only its maintainers
    can check). Who is asking the hub's own client says: HF_TOKEN, or ``hf auth login``. ``endpoint``: another hub.
    ``UsageError`` for a wrong repository or submission, ``AvbenchError`` if the hub refuses or cannot be reached.
    """
    if not REPO.fullmatch(repo):
        raise UsageError(f"repository is {repo!r}; it must be ORG/NAME")
    if endpoint is not None and not re.match(r"https?://", endpoint):
        raise UsageError(f"endpoint is {endpoint!r}; it must begin with https:// or http://")
    read = _checked(folder)
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.utils import logging

    logging.set_verbosity_error()  # what it has to say comes back as an error
    api = HfApi(endpoint=endpoint)
    # asked first, because an upload to a hub that is not there is tried again for half a minute
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
    """What a reader of the pull request sees first; the checker of the repository adds the recomputed scores."""
    submission = read.submission
    lines = [f"{name}: {value:.4f}" for name, value in submission.claimed.items() if value is not None]
    return "\n".join([f"signature {submission.run.signature}", "claimed (to be recomputed):", *lines])


def _asked(repo: str, call: Any, **arguments: Any) -> Any:
    """The hub's answer; its refusals as one line that says what to do."""
    from huggingface_hub import errors

    try:
        return call(**arguments)
    except errors.RepositoryNotFoundError as error:
        status = getattr(error.response, "status_code", 0)
        login = "; log in with `hf auth login` or set HF_TOKEN" if status == 401 else ""
        raise AvbenchError(f"there is no dataset repository {repo}, or it is not yours to see{login}") from error
    except errors.OfflineModeIsEnabled as error:
        raise AvbenchError("HF_HUB_OFFLINE is set: pushing needs the hub; unset it") from error
    except errors.LocalTokenNotFoundError as error:
        raise AvbenchError("you are not logged in: `hf auth login`, or set HF_TOKEN") from error
    except errors.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", 0)
        advice = {
            401: "log in with `hf auth login` or set HF_TOKEN",
            403: "your token may not open pull requests there: it needs the right to write discussions",
            412: "someone pushed at the same time: try again",
            429: "too many requests: try again later",
        }.get(status, shown(error.server_message or str(error), 200))
        raise AvbenchError(f"the hub refused the pull request on {repo} ({status}): {advice}") from error
    except (OSError, ValueError, getattr(errors, "HTTPError", OSError)) as error:  # what the client's transport raises
        raise AvbenchError(f"the hub cannot be reached: {shown(str(error), 200) or type(error).__name__}") from error
