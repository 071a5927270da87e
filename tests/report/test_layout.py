"""A number says what it is: which data set, under the name that readers know it by."""

import re
from typing import Any

import pytest

from silent_study.report.claims import claims
from silent_study.report.figures import draw
from silent_study.report.gather import gather
from silent_study.report.layout import layout
from silent_study.report.summary import cells

OFFICIAL, STAND_IN = "imagenet32", "tiny_imagenet32"
DATASETS = {
    OFFICIAL: {"title": "ImageNet 32x32", "version": "all of it", "sha256": "a" * 64},
    STAND_IN: {"title": "Tiny ImageNet at 32x32", "version": "a stand-in, not comparable", "sha256": "b" * 64},
}


@pytest.fixture
def both(builder, make_context):
    """The official set and the stand-in side by side, as one who runs both has them."""
    names = [f"{dataset}/learnable/{method}" for dataset in DATASETS for method in ("reinforce", "reinforce+silent")]
    for name in names:
        for seed in range(2):
            bpd = {OFFICIAL: 6.0, STAND_IN: 5.0}[name.split("/")[0]] + seed / 100
            builder.add(name, seed=seed, bpd=bpd, data__sha256=DATASETS[name.split("/")[0]]["sha256"])
    context = make_context(names, datasets=DATASETS)
    return builder.records, context


def test_the_stand_in_is_never_mixed_up_with_the_official_set(both):
    records, context = both
    found = cells(records, context)
    tables = {table.name: table for table in layout(found, claims(found), records, context)}
    (frame, *_) = (part.frame for part in tables["table-3-bits-per-dimension"].parts)
    columns: Any = list(frame.columns)
    assert {group for group, _ in columns if group} == {"ImageNet 32x32", "Tiny ImageNet at 32x32"}
    (row,) = frame.to_dict("records")
    assert row["ImageNet 32x32", "without SG"].startswith("6.005")
    assert row["Tiny ImageNet at 32x32", "without SG"].startswith("5.005")
    # The paper's numbers are of the official set alone.
    assert row["ImageNet 32x32", "published without SG"] == "6.87"
    assert [name for group, name in columns if group == "Tiny ImageNet at 32x32"] == ["without SG", "with SG"]
    data = tables["table-3-bits-per-dimension"].data
    assert data[data["dataset"] == STAND_IN]["published"].isna().all()


def test_every_table_and_figure_names_the_data_set_in_full(both):
    records, context = both
    found = cells(records, context)
    for table in layout(found, claims(found), records, context):
        for part in table.parts:
            # Captions of one data set alone; a compact table has the names above its columns.
            if "without and with" not in part.caption:
                assert re.search(r"^(ImageNet 32x32|Tiny ImageNet at 32x32), learnable variance", part.caption)
        if table.parts and table.name != "claims":
            notes = " ".join(table.notes)
            assert "Tiny ImageNet at 32x32 (tiny_imagenet32; a stand-in, not comparable): sha256 bbbbbbbbbbbb" in notes
            assert "ImageNet 32x32 (imagenet32; all of it): sha256 aaaaaaaaaaaa" in notes
    titles = [drawing.title for drawing in draw(found, context)]
    assert any("Tiny ImageNet at 32x32" in title for title in titles)
    assert not any(STAND_IN in title for title in titles)


def test_the_page_names_versions_and_digests(both, tmp_path):
    records, context = both
    gather(records, context, tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert "Data set Tiny ImageNet at 32x32" in page
    assert f"a stand-in, not comparable; sha256 {'b' * 64}" in page
