"""What the supervisor knows of its nodes: what each said last, since when it is silent, and whether its GPUs are known
to be free. Pure.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from shoal.agent.peers import silent
from shoal.engine import gate
from shoal.engine.agents import is_silence
from shoal.state.status import NodeState, NodeStatus

Answers = Mapping[str, NodeStatus | str]
# A token needs every rank. One that is younger than this proves that a node lives, however silent its agent is.
TOKEN_PROVES = 20.0


@dataclass(frozen=True)
class Word:
    """The last status of a node, and when it came (monotonic seconds)."""

    status: NodeStatus
    at: float


@dataclass(frozen=True)
class Nodes:
    """The expected nodes as they are known.

    ``fresh`` are memberships (raylets, or stays without Ray) that began before our eyes, or of which Ray said that they
    hold no GPU: no engine was on them since. On the ``verified`` ones the agents found nobody at the GPUs either.
    ``apart`` is a node the engine runs on that may lose its agent without harm.
    """

    lost_after: float
    answers: Answers = field(default_factory=dict)
    words: Mapping[str, Word] = field(default_factory=dict)
    fresh: frozenset[str] = frozenset()
    verified: frozenset[str] = frozenset()
    launched: Mapping[str, str | None] = field(default_factory=dict)
    apart: str = ""

    def asked(self, answers: Answers, now: float) -> "Nodes":
        """After all were asked."""
        words, fresh = dict(self.words), set(self.fresh)
        for address, answer in answers.items():
            if not isinstance(answer, NodeStatus):
                continue
            before = words.get(address)
            if before is not None and answer.member and before.status.member != answer.member:
                fresh.add(answer.member)
            words[address] = Word(answer, now)
        return replace(self, answers=dict(answers), words=words, fresh=frozenset(fresh))

    def checked(self, raylets: frozenset[str]) -> "Nodes":
        """After those raylets' GPUs were found to be free."""
        return replace(self, fresh=self.fresh | raylets, verified=self.verified | raylets)

    def launch(self, apart: str = "") -> "Nodes":
        """The engine is launched on what is there now; from here on no raylet counts as unused."""
        on = {address: answer.member for address, answer in self.answers.items() if isinstance(answer, NodeStatus)}
        return replace(self, launched=on, fresh=frozenset(), verified=frozenset(), apart=apart)

    def gone(self) -> "Nodes":
        """The engine has ended."""
        return replace(self, launched={})

    @property
    def up(self) -> tuple[NodeStatus, ...]:
        """The nodes that say that they are up."""
        told = (answer for answer in self.answers.values() if isinstance(answer, NodeStatus))
        return tuple(node for node in told if node.member and node.state is NodeState.UP)

    @property
    def raylets(self) -> frozenset[str]:
        """The raylets that are up, or without Ray the stays."""
        return frozenset(str(node.member) for node in self.up)

    @property
    def reachable(self) -> dict[str, str]:
        """The names, by address, of the nodes whose agents answer."""
        return {address: node.name for address, node in self.answers.items() if isinstance(node, NodeStatus)}

    @property
    def unsure(self) -> dict[str, str]:
        """The raylets, by id with their nodes' names, of which Ray must be asked whether it holds a GPU."""
        return {
            str(node.ray_node_id): node.name
            for node in self.up
            if node.ray_node_id and node.ray_node_id not in self.fresh
        }

    @property
    def unchecked(self) -> bool:
        """Whether some raylet's GPUs may be held."""
        return bool(self.raylets - self.verified)

    @property
    def hushed(self) -> bool:
        """Whether a node is silent or says that it hears nothing: no time for verdicts about tokens."""
        return any(not isinstance(one, NodeStatus) or one.state is NodeState.SUSPECT for one in self.answers.values())

    def view(self, now: float) -> dict[str, NodeStatus | str]:
        """Each node as it is shown: as it says, or suspect or lost where it was heard before and is silent."""
        return {address: self._one(address, answer, now) for address, answer in self.answers.items()}

    def _one(self, address: str, answer: NodeStatus | str, now: float) -> NodeStatus | str:
        word = self.words.get(address)
        if isinstance(answer, NodeStatus) or word is None:
            return answer
        if not is_silence(answer):
            return word.status.model_copy(update={"state": NodeState.LOST, "detail": f"its agent: {answer}"})
        return silent(word.status, now - word.at, self.lost_after)

    def proven(self, now: float, token: float | None) -> dict[str, NodeStatus | str]:
        """The view, less what a token has refuted: a node that only its agent's silence speaks against is up."""
        alive = token is not None and now - token < TOKEN_PROVES
        return {
            address: self._last_word(address, shown) if alive and self._is_hushed(address) else shown
            for address, shown in self.view(now).items()
        }

    def _is_hushed(self, address: str) -> bool:
        answer = self.answers[address]
        return answer.state is NodeState.SUSPECT if isinstance(answer, NodeStatus) else is_silence(answer)

    def _last_word(self, address: str, shown: NodeStatus | str) -> NodeStatus | str:
        word = self.words.get(address)
        return shown if word is None else word.status.model_copy(update={"state": NodeState.UP, "detail": ""})

    def lost(self, now: float, token: float | None = None) -> str:
        """Which node that the engine runs on is gone; empty while all are there, or silent while tokens come."""
        shown = self.proven(now, token)
        on = set(self.launched) - {self.apart}
        return gate.lost(self.launched, {address: one for address, one in shown.items() if address in on})
