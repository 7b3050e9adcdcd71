"""Memory shared by a decoding process and the one that computes."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from avbench.engine import slab
from avbench.engine.slab import Place, Slab, Slabs


def filled(with_: int) -> object:
    def fill(there: np.ndarray) -> None:
        there[:] = with_

    return fill


def test_what_is_written_is_read_and_a_full_slab_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slab, "STILL_HERE_S", 0.01)
    heard = threading.Event()
    writer, reader = Slab(64, heard.set, n_slots=3), Slabs()
    places = [writer.put((2, 3), np.dtype(np.uint8), filled(k)) for k in range(3)]
    assert len({place.slot for place in places}) == 3
    more: list[Place] = []
    waiting = threading.Thread(target=lambda: more.append(writer.put((5,), np.dtype(np.float32), filled(7))))
    waiting.start()
    assert heard.wait(10), "a process that waits says that it is still here"
    assert not more
    for k, place in enumerate(places):
        np.testing.assert_array_equal(reader.view(place), np.full((2, 3), k, np.uint8))
    reader.free(places[1])
    waiting.join(10)
    assert more[0].slot == places[1].slot
    np.testing.assert_array_equal(reader.view(more[0]), np.full(5, 7, np.float32))
    for place in (places[0], places[2], more[0]):
        reader.free(place)
    writer.close()
    reader.close()


def test_the_slab_of_a_process_that_is_gone_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        Slabs().view(Place(str(tmp_path / "gone"), "gone", 4096, 0, 64, (1,), "|u1"))
