"""Reading runs back, cheaply."""

import json
import subprocess
import sys

import pytest

from silent_study.store.records import CURVE_COLUMNS, RecordError, load


def test_a_record_is_what_lies_in_the_folder(builder):
    record = builder.add("digits/fixed/reinforce", seed=2, bpd=2.75)
    assert (record.dataset, record.experiment, record.method) == ("digits", "fixed", "reinforce")
    assert record.cell == "digits/fixed/reinforce"
    assert record.seed == 2
    assert record.evaluation is not None
    assert record.evaluation["report"]["bpd"] == 2.75
    assert record.name.startswith("digits/fixed/reinforce/")
    assert not record.diverged


def test_the_curve_keeps_every_epoch_and_turns_null_into_nan(builder):
    record = builder.add("digits/fixed/reinforce", diverged_epoch=4)
    assert list(record.curve.columns) == list(CURVE_COLUMNS)
    assert record.curve["epoch"].tolist() == [1, 2, 3, 4]
    assert record.curve["selection_bpd"].isna().tolist() == [False, False, False, True]
    assert record.diverged


def test_reconstructions_are_none_where_there_are_none(builder):
    assert builder.add("digits/fixed/reinforce", selected=False).reconstructions() is None
    fixed = builder.add("digits/fixed/silent-gaussian").reconstructions()
    learnable = builder.add("digits/learnable/silent-gaussian").reconstructions()
    assert set(fixed) == {"originals", "means"}
    assert set(learnable) == {"originals", "means", "standard_deviations"}


def test_an_unfinished_run_is_refused_by_name(builder):
    record = builder.add("digits/fixed/reinforce")
    (record.folder / "record.json").unlink()
    with pytest.raises(RecordError, match="unfinished"):
        load(record.folder, "seeds")


def test_a_run_under_a_foreign_name_is_refused(builder):
    record = builder.add("digits/fixed/reinforce")
    path = record.folder / "record.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"name": "digits/fixed/gumbel-softmax/x"}))
    with pytest.raises(RecordError, match="belong to digits/fixed/reinforce"):
        load(record.folder, "seeds")


def test_importing_the_records_loads_no_heavy_library():
    code = (
        "import sys, silent_study.store.records;"
        "print(sorted({'pandas', 'numpy', 'matplotlib', 'seaborn', 'scipy', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
