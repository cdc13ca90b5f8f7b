"""A machine as a folder that `shoal doctor --from` reads: files under fs/, replies in commands.json."""

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path

NO_SUCH = {"rc": 127, "stdout": "", "stderr": "not found"}
LOOKED = ("/sys", "/proc", "/dev/infiniband", "/etc", "/run", "/.dockerenv", "/var/run", "/usr", "/opt", "/lib")


@dataclass
class Tree:
    """One machine while it is written down. ``taken`` is its clock, in seconds since the epoch."""

    name: str
    taken: float = 1_764_000_000.0
    files: dict[str, str] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    replies: dict[str, dict[str, object]] = field(default_factory=dict)

    def file(self, path: str, text: object) -> None:
        """A file with one line, or with this text where it has a line end."""
        said = str(text)
        self.files[path] = said if said.endswith("\n") or not said else said + "\n"

    def folder(self, path: str, **values: object) -> None:
        """Files of a folder by name."""
        for name, value in values.items():
            self.file(f"{path}/{name}", value)

    def link(self, path: str, target: str) -> None:
        """A symbolic link."""
        self.links[path] = target

    def reply(self, line: str, out: str = "", code: int = 0, err: str = "") -> None:
        """What a command answered."""
        self.replies[line] = {"rc": code, "stdout": out, "stderr": err}

    def absent(self, *lines: str) -> None:
        """Commands whose program the machine does not have."""
        for line in lines:
            self.replies[line] = dict(NO_SUCH)

    def json(self) -> dict[str, str]:
        """The capture's documents by name."""
        meta = {"format": 1, "name": self.name, "taken": self.taken, "asked": self.taken, "looked": list(LOOKED)}
        documents = {"meta.json": {**meta, "errors": self.errors}, "commands.json": self.replies}
        return {name: json.dumps(value, indent=1, sort_keys=True) + "\n" for name, value in documents.items()}

    def everything(self) -> dict[str, str]:
        """All that lies in the folder: text by path, links as ``-> target``."""
        return {
            **self.json(),
            **{f"fs{path}": text for path, text in self.files.items()},
            **{f"fs{path}": f"-> {target}" for path, target in self.links.items()},
        }

    def save(self, folder: Path) -> None:
        """Write the folder anew."""
        shutil.rmtree(folder, ignore_errors=True)
        for path, text in self.everything().items():
            where = folder / path
            where.parent.mkdir(parents=True, exist_ok=True)
            if text.startswith("-> "):
                where.symlink_to(text.removeprefix("-> "))
            else:
                where.write_text(text, encoding="utf-8")


def found(folder: Path) -> dict[str, str]:
    """A folder as :meth:`Tree.everything` describes it."""
    return {
        str(path.relative_to(folder)): f"-> {path.readlink()}" if path.is_symlink() else path.read_text("utf-8")
        for path in folder.rglob("*")
        if path.is_symlink() or path.is_file()
    }
