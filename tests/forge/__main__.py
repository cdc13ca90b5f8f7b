"""Write the machines that are made by hand anew: python -m tests.forge."""

from pathlib import Path

from tests.forge.machines import MACHINES

HERE = Path(__file__).parent.parent / "machines"

for folder, make in MACHINES.items():
    trees = make()
    for tree in trees:
        tree.save(HERE / folder / tree.name if len(trees) > 1 else HERE / folder)
