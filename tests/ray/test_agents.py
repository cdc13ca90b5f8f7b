"""Two agents with real Rays: whatever ends, the node is back by itself, and nobody is taken for somebody else."""

import importlib.util
import json
import signal
from collections.abc import Iterator

import psutil
import pytest
from tests.ray.agents import Pair, pair, until

pytestmark = [
    pytest.mark.ray,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed"),
]


@pytest.fixture(scope="module")
def nodes() -> Iterator[Pair]:
    """A head and a worker that are up."""
    with pair() as both:
        both.head.up()
        both.worker.up()
        yield both


def test_both_are_in_one_cluster(nodes: Pair) -> None:
    """Head and worker tell the same cluster id, and the head's agent has heard the worker."""
    head, worker = nodes.head.up(), nodes.worker.up()
    assert head["ray_cluster_id"] == worker["ray_cluster_id"] is not None
    until(lambda: [one["state"] for one in nodes.head.ask("/peers")] == ["up"], 10, "the head hears the worker")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "terminated"])
def test_a_raylet_that_ends_is_lost_and_comes_back(nodes: Pair, number: signal.Signals) -> None:
    """A raylet that was killed, or that ended well and left `ray start` waiting for ever, is replaced by a new one."""
    before = nodes.worker.up()
    nodes.worker.one("raylet").send_signal(number)
    until(lambda: nodes.worker.status()["state"] == "lost", 10, "the worker is lost")
    after = nodes.worker.up(other_than=before["ray_node_id"])
    assert after["ray_cluster_id"] == before["ray_cluster_id"]


def test_an_agent_that_was_killed_is_not_taken_for_its_old_self(nodes: Pair) -> None:
    """Killed and started again at once, it is verified by its new raylet, while Ray still lists the old one."""
    before = nodes.worker.up()
    family = nodes.worker.family()
    rank = next(process for process in family if process.name() != "raylet")
    rank.send_signal(signal.SIGSTOP)
    nodes.worker.send(signal.SIGKILL)
    nodes.worker.start()
    after = nodes.worker.up(other_than=before["ray_node_id"])
    assert after["ray_cluster_id"] == before["ray_cluster_id"]
    assert [one for one in family if one.is_running() and one.status() != psutil.STATUS_ZOMBIE] == []


def test_a_stopped_agent_is_suspect_and_then_itself_again(nodes: Pair) -> None:
    """A silent agent is suspect to the head; when it goes on, its Ray is the same as before."""
    before = nodes.worker.up()
    nodes.worker.send(signal.SIGSTOP)
    states = until(lambda: [one["state"] for one in nodes.head.ask("/peers")] == ["suspect"], 5, "it is suspect")
    nodes.worker.send(signal.SIGCONT)
    until(lambda: [one["state"] for one in nodes.head.ask("/peers")] == ["up"], 10, "it is up")
    assert (states, nodes.worker.up()["ray_node_id"]) == (True, before["ray_node_id"])


def test_a_head_that_starts_anew_is_joined_at_once(nodes: Pair) -> None:
    """After the head's Ray was killed both are in a new cluster, and the worker has spent no restart on it."""
    before = nodes.worker.up()
    nodes.head.one("gcs_server").send_signal(signal.SIGKILL)
    after = nodes.worker.up(other_than=before["ray_node_id"])
    head = nodes.head.up()
    assert after["ray_cluster_id"] == head["ray_cluster_id"] != before["ray_cluster_id"]
    assert after["restarts"] == before["restarts"]


def test_a_gcs_that_hangs_fences_the_worker_and_is_replaced(nodes: Pair) -> None:
    """A stopped GCS makes the worker end its own Ray after SHOAL_LOST_AFTER, and the head start a new one."""
    before = nodes.worker.up()
    nodes.head.one("gcs_server").send_signal(signal.SIGSTOP)
    after = nodes.worker.up(other_than=before["ray_node_id"])
    assert after["ray_cluster_id"] == nodes.head.up()["ray_cluster_id"] != before["ray_cluster_id"]
    words = " | ".join(event.words for event in nodes.worker.events() + nodes.head.events())
    assert "the GCS has not answered for 6 s" in words


def test_everything_is_in_the_journals(nodes: Pair) -> None:
    """What happened can be read afterwards, from the node and over its endpoint; no line holds the token."""
    kinds = {event.kind for event in nodes.worker.events()}
    assert {"wait_head", "join", "verify", "up"} <= kinds
    told = nodes.worker.ask("/events")
    assert [one["kind"] for one in told] == [event.kind for event in nodes.worker.events()][: len(told)]
    assert nodes.worker.token not in json.dumps(told)
