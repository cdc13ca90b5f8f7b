"""What tools/bootstrap.py decides: what to install, what to leave, what to refuse."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools"


def load(name: str) -> ModuleType:
    """Import a tool by its path; tools/ is no package."""
    spec = importlib.util.spec_from_file_location(name, TOOLS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


rules = load("bootstrap_rules")
bootstrap = load("bootstrap")
HERE = f"{sys.version_info[0]}.{sys.version_info[1]}"
ENV = {
    "sys_platform": "linux",
    "platform_machine": "x86_64",
    "platform_system": "Linux",
    "python_full_version": "3.11.7",
    "python_version": "3.11",
    "implementation_name": "cpython",
    "platform_python_implementation": "CPython",
}


@pytest.mark.parametrize(
    ("marker", "expected"),
    [
        ("sys_platform == 'linux'", True),
        ("sys_platform == 'win32'", False),
        ("python_full_version >= '3.12'", False),
        ("python_full_version < '3.12'", True),
        ("platform_machine == 'aarch64' or platform_machine == 'x86_64'", True),
        ("implementation_name == 'pypy' or (sys_platform == 'linux' and python_version != '3')", True),
    ],
)
def test_a_marker_decides_whether_a_requirement_applies(marker: str, expected: bool) -> None:
    assert rules.applies(marker, ENV) is expected


def test_versions_in_markers_compare_as_numbers_not_as_text() -> None:
    assert rules.applies("python_full_version < '3.12'", ENV | {"python_full_version": "3.9.1"})


def test_a_marker_that_is_no_comparison_is_an_error_rather_than_run() -> None:
    with pytest.raises(TypeError):
        rules.applies("print('hello')", ENV)


def test_requirements_are_counted_once_under_their_normal_names() -> None:
    lock = (
        "# typing-extensions==1 in a comment\n"
        "Some_Name==1.0 \\\n    --hash=sha256:00\n    # via other\n"
        "numpy==2.3 ; python_full_version < '3.13' \\\n    --hash=sha256:01\n"
        "numpy==2.4 ; python_full_version >= '3.13' \\\n    --hash=sha256:02\n"
        "pywin32==3 ; sys_platform == 'win32' \\\n    --hash=sha256:03\n"
        "last==1\n"
    )
    assert rules.requirements(lock, ENV) == {"some-name", "numpy", "last"}


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize("python", ["3.11.0", "3.12.1", "3.13.0", "3.14.0"])
@pytest.mark.parametrize("name", ["up.txt", "dev.txt"])
def test_every_marker_in_the_locks_is_understood(name: str, python: str, machine: str) -> None:
    env = ENV | {"python_full_version": python, "platform_machine": machine}
    assert rules.requirements((rules.LOCKS / name).read_text(), env)


def test_the_locks_bring_no_gpu_package_and_no_second_torch() -> None:
    locked = rules.requirements((rules.LOCKS / "up.txt").read_text(), ENV)
    assert not {name for name in locked if name.startswith("nvidia")}
    assert not locked & {"torch", "torchvision", "torchaudio", "torchcodec", "triton"}


def test_the_locks_hold_what_the_engine_needs_but_does_not_ask_for() -> None:
    assert {"pycountry", "hatchling", "editables", "sympy", "networkx"} <= rules.requirements(
        (rules.LOCKS / "up.txt").read_text(), ENV
    )


def test_tests_and_engine_agree_on_the_version_of_what_both_use() -> None:
    pins = [
        {line.split(" ")[0].split("==")[0]: line.split(" ")[0] for line in text if "==" in line}
        for text in ((rules.LOCKS / n).read_text().splitlines() for n in ("up.txt", "dev.txt"))
    ]
    assert all(pins[0][name] == pins[1][name] for name in pins[0].keys() & pins[1].keys())


def test_no_lock_names_an_index_or_a_folder_of_the_machine_it_was_made_on() -> None:
    for lock in rules.LOCKS.glob("*.txt"):
        assert "://" not in lock.read_text()
        assert not [word for word in lock.read_text().split() if word.startswith("/")]


def test_a_stamp_changes_with_each_part_and_with_the_border_between_parts() -> None:
    assert len({rules.stamp(b"ab", b"c"), rules.stamp(b"a", b"bc"), rules.stamp(b"abc")}) == 3


def test_a_stamp_changes_with_the_format(monkeypatch: pytest.MonkeyPatch) -> None:
    before = rules.stamp(b"a")
    monkeypatch.setattr(rules, "FORMAT", rules.FORMAT + 1)
    assert rules.stamp(b"a") != before


def test_only_sets_with_a_missing_or_other_stamp_are_left_to_do(tmp_path: Path) -> None:
    (tmp_path / "bootstrap-torch.stamp").write_text("same\n")
    (tmp_path / "bootstrap-up.stamp").write_text("old\n")
    wanted = {"torch": "same\n", "up": "new\n", "shoal": "any\n"}
    assert rules.undone(tmp_path, wanted) == ["up", "shoal"]


def test_an_environment_of_this_python_and_place_is_kept(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python").touch()
    command = f"/usr/bin/python -m venv {tmp_path}"
    (tmp_path / "pyvenv.cfg").write_text(f"version = {HERE}.1\ncommand = {command}\n")
    assert rules.outdated(tmp_path) == ""


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ("version = 3.8.18\n", "made by Python 3.8"),
        (f"version = {HERE}.1\ncommand = python -m venv /elsewhere\n", "made as /elsewhere"),
        (f"version = {HERE}.1\n", "gone"),
    ],
)
def test_an_environment_that_cannot_serve_is_made_anew(tmp_path: Path, config: str, why: str) -> None:
    (tmp_path / "pyvenv.cfg").write_text(config)
    assert why in rules.outdated(tmp_path)


def test_a_folder_that_is_no_environment_is_refused_by_name_and_kept(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(rules.BootstrapError, match=tmp_path.name):
        rules.check_folder(tmp_path)
    assert (tmp_path / "letter.txt").exists()


@pytest.mark.parametrize("left", [[], ["bootstrap.log"], ["bootstrap.log", "tmp"], ["pyvenv.cfg"]])
def test_a_folder_that_an_interrupted_run_left_is_taken_up(tmp_path: Path, left: list[str]) -> None:
    for name in left:
        (tmp_path / name).touch()
    rules.check_folder(tmp_path)


@pytest.mark.parametrize("version", [(2, 7), (3, 8), (3, 10), (3, 15), (4, 0)])
def test_a_python_without_wheels_is_refused_with_its_version(version: tuple[int, int]) -> None:
    with pytest.raises(rules.BootstrapError, match="Python {}.{}\n".format(*version)):
        rules.check_python(version)


@pytest.mark.parametrize("minor", [11, 12, 13, 14])
def test_each_locked_python_is_accepted(minor: int) -> None:
    rules.check_python((3, minor))


@pytest.mark.parametrize(
    ("system", "machine", "libc"),
    [
        ("darwin", "aarch64", "glibc 2.36"),
        ("linux", "riscv64", "glibc 2.36"),
        ("linux", "x86_64", "glibc 2.28"),
        ("linux", "x86_64", ""),
    ],
)
def test_a_machine_without_wheels_is_refused(system: str, machine: str, libc: str) -> None:
    with pytest.raises(rules.BootstrapError):
        rules.check_platform(system, machine, libc)


def test_linux_with_a_recent_glibc_is_accepted() -> None:
    rules.check_platform("linux", "aarch64", "glibc 2.36")


def test_a_full_disk_is_refused_with_what_is_free_and_what_is_needed() -> None:
    with pytest.raises(rules.BootstrapError, match=r"1\.0 GB are free[^$]*expected: 3\.5 GB"):
        rules.check_disk(10**9, 5 * 10**8, Path("/x"))


def test_what_an_earlier_run_installed_counts_towards_the_disk_it_needs() -> None:
    rules.check_disk(2 * 10**9, 2 * 10**9 + 1, Path("/x"))


def test_a_missing_ensurepip_names_the_package_that_brings_it() -> None:
    with pytest.raises(rules.BootstrapError, match="apt install python3-venv"):
        rules.check_ensurepip(found=False)


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE", "sha256"),
        ("WARNING: Retrying: NewConnectionError\nERROR: No matching distribution", "answers"),
        ("ERROR: No matching distribution found for torch==2.13.0+cpu", "holds this very version"),
        ("OSError: [Errno 28] No space left on device", "free disk"),
        ("OSError: [Errno 30] Read-only file system: 'x'", "may write"),
        ("something else", "pip to end well"),
    ],
)
def test_a_failure_of_pip_is_told_by_its_cause(output: str, expected: str) -> None:
    told = str(rules.diagnose("wheels", output, Path("pip.log")))
    assert expected in told.partition("expected: ")[2]
    assert "to mend: " in told


def test_the_last_words_are_errors_before_all_else() -> None:
    assert rules.last_words("ERROR: first\nWARNING: noise\nCollecting x\n") == "ERROR: first"


def test_the_last_words_without_an_error_are_the_last_lines_but_warnings() -> None:
    assert rules.last_words("one\ntwo\nWARNING: noise\n").split() == ["one", "two"]


def test_a_wheel_counts_as_fetched_once_whichever_way_it_came() -> None:
    output = (
        "Collecting a==1 (from -r up.txt (line 3))\n"
        "  Downloading a-1-py3-none-any.whl.metadata (5 kB)\n"
        "  Downloading a-1-py3-none-any.whl (1.9 MB)\n"
        "  Using cached b-1-py3-none-any.whl (2 kB)\n"
        "Processing /wheels/c-1-py3-none-any.whl\n"
        "Requirement already satisfied: d==1 in ./site-packages\n"
    )
    assert rules.fetched(output) == 4


def test_a_complete_environment_is_left_alone_without_a_word(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = {"torch": "t", "up": "u", "shoal": "s", "dev": "d"}
    monkeypatch.setattr(bootstrap, "stamps", lambda: dict(wanted))
    for name, text in wanted.items():
        (tmp_path / f"bootstrap-{name}.stamp").write_text(text)
    assert bootstrap.main(["test", "--venv", str(tmp_path)]) == 0
    assert capsys.readouterr() == ("", "")


def test_a_refusal_ends_the_command_with_one_and_no_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap, "stamps", lambda: {"up": "u", "dev": "d"})
    (tmp_path / "letter.txt").touch()
    assert bootstrap.main(["up", "--venv", str(tmp_path)]) == 1
    told = capsys.readouterr().err
    assert told.startswith("bootstrap: ")
    assert "Traceback" not in told


def test_half_written_packages_are_forgotten_and_whole_ones_kept(tmp_path: Path) -> None:
    env = bootstrap.Environment(tmp_path)
    for name in ("whole-1.dist-info", "half-1.dist-info"):
        (env.site / name).mkdir(parents=True)
    (env.site / "whole-1.dist-info/INSTALLER").write_text("pip\n")
    env.drop_halves()
    assert env.installed() == {"whole"}
    assert not (env.site / "half-1.dist-info").exists()
