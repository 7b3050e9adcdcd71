"""The automation: what it may do, and that a pull request's files are only ever data to it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

FOLDER = Path(__file__).resolve().parent.parent / ".github" / "workflows"
FILES = {path.name: path for path in sorted(FOLDER.glob("*.yml"))}
OF_THE_PULL_REQUEST = re.compile(r"github\.event\.pull_request\.head|github\.head_ref|refs/pull")


def workflow(name: str) -> dict[str, Any]:
    document = yaml.safe_load(FILES[name].read_text(encoding="utf-8"))
    document["on"] = document.pop(True)  # YAML 1.1 reads a bare `on` as a boolean
    return document


def steps(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [step for job in document["jobs"].values() for step in job["steps"]]


def test_the_workflows_are_there() -> None:
    names = {"ci.yml", "leaderboard.yml", "release.yml", "submission-check.yml", "submission-comment.yml"}
    assert set(FILES) == names


@pytest.mark.parametrize("name", FILES)
def test_least_rights_and_pinned_actions(name: str) -> None:
    document = workflow(name)
    assert document["permissions"] in ({}, {"contents": "read"}), "rights are given to a job, never to a whole file"
    assert "pull_request_target" not in document["on"], "it would give a stranger's code the repository's rights"
    assert "secrets." not in FILES[name].read_text()
    for job in document["jobs"].values():
        assert job["timeout-minutes"] <= 60
        assert re.fullmatch(r"ubuntu-\d\d\.\d\d", job["runs-on"])
    for step in steps(document):
        if "uses" in step:
            known = r"(actions/[a-z-]+|pypa/gh-action-pypi-publish)@v\d+\.\d+\.\d+"
            assert re.fullmatch(known, step["uses"]), step["uses"]
        if step.get("uses", "").startswith("actions/checkout"):
            assert step["with"]["persist-credentials"] is False
        # what a stranger may choose (titles, branch names) never becomes part of a command
        assert "${{" not in step.get("run", ""), step


def test_only_the_comment_may_write_and_only_pages_are_published() -> None:
    rights = {
        (name, job): body["permissions"]
        for name in FILES
        for job, body in workflow(name)["jobs"].items()
        if "permissions" in body
    }
    assert rights == {
        ("submission-comment.yml", "comment"): {"actions": "read", "pull-requests": "write"},
        ("leaderboard.yml", "publish"): {"pages": "write", "id-token": "write"},
        ("release.yml", "publish"): {"id-token": "write"},
    }


def test_the_checker_is_mains_and_the_pull_request_is_data() -> None:
    document = workflow("submission-check.yml")
    assert set(document["on"]) == {"pull_request"}
    assert document["on"]["pull_request"]["paths"] == ["submissions/**"]
    code, data = [step["with"] for step in steps(document) if step.get("uses", "").startswith("actions/checkout")]
    assert code["path"] == "main"
    assert code["ref"] == "${{ github.event.repository.default_branch }}"
    assert data["path"] == "pr"
    assert data["ref"] == "${{ github.event.pull_request.head.sha }}"
    assert data["sparse-checkout"] == "submissions/entries"
    assert data["lfs"] is False
    assert data["submodules"] is False
    for step in steps(document):
        folder, command = step.get("working-directory", ""), step.get("run", "")
        assert not folder.startswith("pr")
        assert "PYTHONPATH" not in command
        assert "PYTHONPATH" not in str(step.get("env", ""))
        for word in command.split():
            assert not word.startswith("pr/") or word == "pr/submissions/entries", word
        if "pip install" in command:
            assert folder == "main"
        if "python" in command and "pip" not in command:
            assert command.startswith("python -I -m avbench "), "not from the working directory"
    assert not any(
        "run" in step and re.search(r"\b(cd|source|bash|sh|pytest|make)\b", step["run"]) for step in steps(document)
    )


def test_the_comment_checks_nothing_out_and_takes_the_number_from_nobody() -> None:
    document = workflow("submission-comment.yml")
    assert set(document["on"]) == {"workflow_run"}
    assert document["on"]["workflow_run"]["workflows"] == [workflow("submission-check.yml")["name"]]
    assert not any(step.get("uses", "").startswith("actions/checkout") for step in steps(document))
    assert not any("run" in step for step in steps(document))
    script = next(step["with"]["script"] for step in steps(document) if "script" in step.get("with", {}))
    assert "${{" not in script
    assert "context.payload.workflow_run.head_sha" in script
    assert script.count("readFileSync") == 1
    assert script.count("review/review.md") == 2


def test_the_board_is_built_from_main_after_a_merge() -> None:
    document = workflow("leaderboard.yml")
    assert document["on"]["push"]["branches"] == ["main"]
    assert "pull_request" not in document["on"]
    assert not OF_THE_PULL_REQUEST.search(FILES["leaderboard.yml"].read_text())
    commands = [step["run"] for step in steps(document) if "run" in step]
    assert "avbench leaderboard build --entries submissions/entries --out site" in commands
    assert document["jobs"]["publish"]["needs"] == "build"


def test_the_pull_requests_tests_have_no_rights() -> None:
    document = workflow("ci.yml")
    assert document["permissions"] == {"contents": "read"}
    assert [step["run"] for step in steps(document) if "run" in step][-1] == "pytest"


def test_commands_of_the_workflows_exist(capsys: pytest.CaptureFixture[str]) -> None:
    from avbench.cli import main

    for name in FILES:
        for step in steps(workflow(name)):
            words = step.get("run", "").split()
            if "avbench" in words:
                verbs = words[words.index("avbench") + 1 : words.index("avbench") + 3]
                with pytest.raises(SystemExit) as stopped:
                    main([*verbs, "--help"])
                assert stopped.value.code == 0
                told = capsys.readouterr().out
                assert all(word in told for word in words if word.startswith("--"))


def test_a_release_is_the_version_and_runs_nothing_where_it_is_published() -> None:
    document = workflow("release.yml")
    assert document["on"] == {"push": {"tags": ["v[0-9]+.[0-9]+.[0-9]+"]}}
    build, publish = (document["jobs"][name] for name in ("build", "publish"))
    commands = [step.get("run", "") for step in build["steps"]]
    tagged = next(n for n, command in enumerate(commands) if "GITHUB_REF_NAME" in command)
    assert tagged < next(n for n, command in enumerate(commands) if "pytest" in command)
    assert publish["needs"] == "build"
    assert publish["environment"]["name"] == "pypi"
    assert not [step for step in publish["steps"] if "run" in step], "who may publish runs no code of ours"


@pytest.mark.slow
@pytest.mark.parametrize("command", [["hadolint", "Dockerfile"], ["zizmor", "--offline", "--quiet", ".github"]])
def test_a_linter_has_no_complaint(command: list[str]) -> None:
    program = Path(sys.executable).parent / command[0]
    if not program.exists():
        pytest.skip(f"{command[0]} is not installed: pip install -c constraints.txt -e '.[nightly]'")
    done = subprocess.run([program, *command[1:]], capture_output=True, text=True, cwd=FOLDER.parent.parent)
    assert done.returncode == 0, done.stdout + done.stderr
