"""Group ``runtime``: what runs on a node now, and who could reach it."""

from shoal.checks.base import Check, Scope, Severity, Verdict, check, fail, ok, skip, unknown, warn
from shoal.checks.views import env
from shoal.facts.node import NodeFacts

RUNTIME = Scope.RUNTIME
ALL = {"0.0.0.0", "::", "*", "[::]"}  # noqa: S104 (compared, not bound)
GCS, DASHBOARD, CLIENT, API = 6379, 8265, 10001, 8000
OWN = {8700: "agent", 8701: "supervisor"}
BLOCK, FIRST = 100, 27000  # the ports of a node's Ray, unless SHOAL_PORT_BASE says otherwise
RULES = "table inet shoal"
CLOSE = "shoal firewall ADDRESS... | sudo nft -f -   # the addresses of all nodes"


def _open(facts: NodeFacts, port: int) -> bool:
    return any(address in ALL and number == port for address, number in facts.net.listening or ())


@check("runtime.one-ray", "one Ray runs here at most", severity=Severity.WARNING, scope=RUNTIME, needs=("stack",))
def one_ray(facts: NodeFacts) -> Verdict:
    """Two Rays on one machine share GPUs without knowing of each other: a rank finds its memory taken."""
    found = facts.stack.processes
    if found is None:
        return unknown("processes were not read")
    raylets = [item for item in found if item.kind == "raylet"]
    if len(raylets) < 2:
        return ok(f"{len(raylets)} raylet")
    pids = ", ".join(str(item.pid) for item in raylets)
    return warn(
        f"{len(raylets)} raylets: {pids}", f"ps -o user,args {raylets[0].pid}   # whose it is; its owner ends it"
    )


@check(
    "runtime.orphans", "no engine is left without its Ray", severity=Severity.WARNING, scope=RUNTIME, needs=("stack",)
)
def orphans(facts: NodeFacts) -> Verdict:
    """A vLLM process whose Ray has ended holds GPU memory, and answers nobody."""
    found = facts.stack.processes
    if found is None:
        return unknown("processes were not read")
    engines = [item for item in found if item.kind == "vllm"]
    if not engines:
        return skip("no engine runs")
    if any(item.kind == "raylet" for item in found):
        return ok(f"{len(engines)} process(es) of an engine, and a raylet")
    return warn(f"vLLM without a raylet: pid {engines[0].pid}", f"ps -o user,args {engines[0].pid}   # then end it")


@check("runtime.gcs-open", "Ray is not open to everybody", scope=RUNTIME, needs=("net", "env"))
def gcs_open(facts: NodeFacts) -> Verdict:
    """Ray's GCS listens on all addresses and cannot be told otherwise. Without a token, whoever reaches it runs
    programs here.
    """
    if facts.net.listening is None:
        return unknown("listening sockets were not read: ss -ltn")
    if not _open(facts, GCS):
        return ok("no GCS on all addresses") if facts.net.listening else skip("nothing listens")
    if env(facts, "RAY_AUTH_MODE") == "token":
        return ok("it asks for a token (RAY_AUTH_MODE=token)")
    mend = f"RAY_AUTH_MODE=token with RAY_AUTH_TOKEN_PATH; where Ray has no tokens: {CLOSE}"
    if facts.env is None:
        return unknown("a GCS on all addresses; whether it asks for a token was not read: env")
    return fail("port 6379 on all addresses, and no token is asked for", mend)


@check("runtime.dashboard-open", "Ray's dashboard is not open to everybody", severity=Severity.WARNING, scope=RUNTIME,
       needs=("net",))  # fmt: skip
def dashboard_open(facts: NodeFacts) -> Verdict:
    """Jobs can be sent to the dashboard's port: it is a shell for whoever reaches it."""
    if facts.net.listening is None:
        return unknown("listening sockets were not read: ss -ltn")
    found = [port for port in (DASHBOARD, CLIENT) if _open(facts, port)]
    if not found:
        return ok("neither 8265 nor 10001 on all addresses")
    return warn(f"on all addresses: {', '.join(map(str, found))}", "--dashboard-host=127.0.0.1, or close the port")


@check("runtime.api-open", "the API is not open to everybody", severity=Severity.WARNING, scope=RUNTIME,
       needs=("net", "stack"))  # fmt: skip
def api_open(facts: NodeFacts) -> Verdict:
    """vLLM's own key leaves /invocations and others open: on all addresses, strangers may use the GPU."""
    if facts.net.listening is None:
        return unknown("listening sockets were not read: ss -ltn")
    if not any(item.kind == "vllm" for item in facts.stack.processes or ()):
        return skip("no engine runs")
    if not _open(facts, API):
        return ok("port 8000 is not on all addresses")
    return warn("port 8000 on all addresses", "--host ADDRESS, or SHOAL_API_HOST: the fabric address by default")


@check("runtime.agents-open", "agent and supervisor are not open to everybody", severity=Severity.WARNING,
       scope=RUNTIME, needs=("net",))  # fmt: skip
def agents_open(facts: NodeFacts) -> Verdict:
    """They listen on the node's own address and on loopback. On all addresses it is another program, or a proxy."""
    if facts.net.listening is None:
        return unknown("listening sockets were not read: ss -ltn")
    found = [f"{port} ({name}'s)" for port, name in OWN.items() if _open(facts, port)]
    if not found:
        return ok("neither 8700 nor 8701 on all addresses")
    return warn(f"on all addresses: {', '.join(found)}", "ss -ltnp   # who listens there; SHOAL_AGENT_PORT moves ours")


@check("runtime.firewall", "what binds all addresses is closed to strangers", severity=Severity.WARNING, scope=RUNTIME,
       needs=("net", "env"))  # fmt: skip
def firewall(facts: NodeFacts) -> Verdict:
    """Ray binds all addresses, and torch's store does, which asks nobody who he is. Rules that let only the nodes in
    are the one protection; `shoal firewall` prints them.
    """
    if facts.net.listening is None:
        return unknown("listening sockets were not read: ss -ltn")
    told = env(facts, "SHOAL_PORT_BASE")
    base = int(told) if told.isdecimal() else FIRST
    wide = {port for address, port in facts.net.listening if address in ALL}
    found = sorted(port for port in wide if port == GCS or base <= port < base + BLOCK)
    if not found:
        return skip("no port of Ray's is on all addresses")
    said = f"on all addresses: {', '.join(map(str, found[:6]))}"
    if facts.net.firewall is None:
        return unknown(f"{said}; the rules were not read: sudo nft list ruleset")
    if RULES in facts.net.firewall:
        return ok(f"{said}; shoal's rules are loaded")
    return warn(f"{said}, and shoal's rules are not loaded", CLOSE)


CHECKS: tuple[Check[NodeFacts], ...] = (
    one_ray, orphans, gcs_open, dashboard_open, api_open, agents_open, firewall,
)  # fmt: skip
