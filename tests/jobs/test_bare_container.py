"""Training runs in a container that has torch and numpy and nothing else that the workflow needs."""

import subprocess
import sys

BLOCKED = {"pydantic", "yaml", "pandas", "seaborn", "matplotlib", "sklearn", "scipy", "jinja2", "rich", "torchvision"}
BLOCKED |= {"snakemake", "dvc"}

PROGRAM = f"""
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {BLOCKED!r}:
            raise ImportError(name)

sys.meta_path.insert(0, Block())
import silent_study.jobs.borrowed
import silent_study.jobs.pack
from silent_study.cli import main
main(["train", "--help"])
"""


def test_training_and_evaluation_import_torch_and_numpy_alone():
    run = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "--pack" in run.stdout
