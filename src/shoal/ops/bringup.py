"""``shoal up --local`` from wish to answer; whatever goes wrong on the way, nothing is left half up."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from shoal.engine.client import Answer
from shoal.errors import ShoalError, StartFailed
from shoal.ops import local
from shoal.ops.ask import ask
from shoal.ops.local import Wish
from shoal.state.run import RunRecord
from shoal.state.status import ClusterStatus

QUESTION = "What is the capital of France?"


@dataclass(frozen=True)
class Ready:
    """A cluster that has answered."""

    record: RunRecord
    status: ClusterStatus
    question: str
    answer: Answer
    stop: str = "shoal down"


def bring_up(
    wish: Wish, env: Mapping[str, str], report: Callable[[str], None], show: Callable[[ClusterStatus], None]
) -> Ready:
    """Bring a local cluster up and ask it something.

    Raises:
        ShoalError: why it is not up. Everything that was started has been taken down; its logs are kept.
    """
    with local.bringing_up(local.cluster_dir(env)):
        local.refuse_second(env)
        _, spec = local.prepare(wish, env, report)
        try:
            record = local.start(spec, env)
            status = local.follow(env, show, wish.join_timeout)
            answer = ask(record, QUESTION, max_tokens=64)
            return Ready(local.keep(spec.state_dir, record, env), status, QUESTION, answer)
        except BaseException as error:
            report("taking down what was started")
            local.down(env)
            if isinstance(error, StartFailed):
                error.fix = "shoal logs   # what each process said; they are kept"
            elif isinstance(error, OSError):
                raise ShoalError("the cluster could not be started", why=str(error)) from error
            raise
