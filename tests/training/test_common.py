"""What trainings say: validations in words, the step that was kept, and when averaging is better."""

from __future__ import annotations

from avbench.training.common import Told, tell_step, validated, what_was_kept

LOG = [
    {"acc": 0.5, "map": 0.4, "apa_acc": 0.6, "apa_map": 0.45, "step": 100, "loss": 2.5},
    {"acc": 0.4, "map": 0.3, "apa_acc": 0.6, "apa_map": 0.45, "step": 200, "loss": 2.25},
]


def test_each_score_stands_beside_that_of_averaging() -> None:
    assert validated(LOG[0]) == "Acc 0.5 (APA 0.6), mAP 0.4 (APA 0.45), loss 2.5"


def test_the_kept_step_is_said_and_a_head_worse_than_averaging_is_warned_of() -> None:
    kept, warned = what_was_kept("toy", LOG)
    assert kept.startswith("toy: kept step 100 of 200: Acc 0.5")
    assert warned.startswith("warning: toy is worse than averaging (APA): mAP 0.4 against 0.45")
    assert len(list(what_was_kept("toy", [LOG[0] | {"map": 0.45}]))) == 1
    assert len(list(what_was_kept("toy", [{"tracked_acc_tol1": 0.5, "step": 3}]))) == 1


def test_steps_go_to_those_that_show_them() -> None:
    seen: list[object] = []
    told = Told(seen.append, lambda *step: seen.append(step))
    told("a line")
    tell_step(told, 3, 10)
    tell_step(seen.append, 4, 10)
    assert seen == ["a line", ("training", 3, 10, "")]
