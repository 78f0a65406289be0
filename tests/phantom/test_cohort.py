"""A cohort on disk: tables as the clinic writes them, masks that fit their images, truth beside them."""

import csv
import json
from pathlib import Path

import highdicom
import numpy as np
import pandas as pd
import pydicom
import pytest
import SimpleITK
from skimage.draw import polygon

from tasks.domain.disease import EVENTS, LABELS, TREATMENTS
from tasks.domain.errors import WrongUse
from tasks.phantom import write_cohort
from tasks.phantom.__main__ import main
from tasks.phantom.cohort import _orders
from tasks.phantom.disease import population
from tasks.phantom.identity import Register, hospital, person
from tasks.phantom.masks import drawn, write_rtstruct
from tasks.phantom.study import render

pytestmark = pytest.mark.xdist_group("phantom-cohort")


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    out = tmp_path_factory.mktemp("cohort")
    seen = []
    summary = write_cohort(
        out, 2, seed=12, site="north", matrix=4.0, progress=lambda done, total: seen.append((done, total))
    )
    return out, summary, seen


def test_it_says_what_it_wrote_and_how_far_it_is(cohort):
    out, summary, seen = cohort
    assert summary.studies == len(list((out / "dicom").iterdir())) == seen[-1][0] == seen[-1][1]
    assert summary.files == sum(1 for p in (out / "dicom").rglob("*") if p.is_file())
    assert (out / "montage.png").stat().st_size > 1000


def test_tables_use_the_words_of_the_design(cohort):
    folder = cohort[0] / "annotations"
    labels = pd.read_csv(folder / "labels.csv", dtype=str)
    treatments, outcomes = pd.read_csv(folder / "treatments.csv"), pd.read_csv(folder / "outcomes.csv")
    assert set(labels["site"]) == {"north"}
    assert labels["reader"].nunique() == 2
    for name in ("arco", "jic", "lesion"):
        assert set(labels[name].dropna()) <= set(LABELS[name])
    assert not labels.duplicated(["study_instance_uid", "side", "reader"]).any()
    assert set(treatments["treatment"]) <= set(TREATMENTS)
    assert set(outcomes["event"]) <= set(EVENTS)
    assert (outcomes[outcomes["event"] == "last_follow_up"].groupby("patient_id").size() == 2).all()
    known = set(pd.read_csv(cohort[0] / "truth" / "hips.csv")["study_instance_uid"])
    assert set(labels["study_instance_uid"]) <= known


def test_truth_has_a_center_for_every_hip_visit(cohort):
    truth = pd.read_csv(cohort[0] / "truth" / "hips.csv")
    assert len(truth) == 2 * cohort[1].studies
    assert truth[["center_x_mm", "center_y_mm", "center_z_mm"]].notna().all(axis=None)
    left, right = (truth[truth["side"] == side]["center_x_mm"].to_numpy() for side in "LR")
    assert ((left - right > 130) & (left - right < 230)).all()


def test_segmentations_lie_on_the_t1_series_and_name_their_reader(cohort):
    out = cohort[0]
    readers = set(pd.read_csv(out / "annotations" / "labels.csv")["reader"])
    paths = sorted((out / "annotations").glob("seg_*.dcm"))
    assert paths
    sources = {}
    for path in (out / "dicom").rglob("*"):
        if path.is_file():
            ds = pydicom.dcmread(path, stop_before_pixels=True)
            sources[ds.SOPInstanceUID] = ds
    for path in paths:
        seg = highdicom.seg.Segmentation.from_dataset(pydicom.dcmread(path))
        assert str(seg.ContentCreatorName) in readers
        assert {seg.get_segment_description(n).segment_label for n in seg.segment_numbers} <= {"head", "lesion"}
        for frame in seg.PerFrameFunctionalGroupsSequence:
            source = sources[frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID]
            assert source.StudyInstanceUID == seg.StudyInstanceUID
            position = frame.PlanePositionSequence[0].ImagePositionPatient
            assert [float(v) for v in position] == [float(v) for v in source.ImagePositionPatient]


def test_vessel_masks_lie_on_the_contrast_series_with_a_value_for_each_side(cohort):
    out = cohort[0]
    truth = pd.read_csv(out / "truth" / "hips.csv").set_index(["study_instance_uid", "side"])
    with open(out / "annotations" / "masks.csv", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert {row["file"].split(".", 1)[1] for row in rows} <= {"nii.gz", "nrrd"}
    for row in rows:
        image = SimpleITK.ReadImage(str(out / "annotations" / row["file"]))
        voxels = np.argwhere(SimpleITK.GetArrayFromImage(image) == int(row["value"]))
        points = [image.TransformIndexToPhysicalPoint([int(v) for v in voxel[::-1]]) for voxel in voxels]
        hip = truth.loc[(row["study_instance_uid"], row["side"])]
        center = hip[["center_x_mm", "center_y_mm", "center_z_mm"]].to_numpy(float)
        assert np.linalg.norm(np.array(points) - center, axis=1).max() < hip["head_radius_mm"] + 4


def test_two_readers_agree_as_readers_do():
    made = population(4, 5)
    people = [person("x", 5, n, row.sex, row.age, row.first_day) for n, row in enumerate(made.patients.itertuples())]
    orders = list(_orders(Path("."), made, people, hospital("x", 5), 5, "x", 1.5))
    scores = {"head": [], "lesion": []}
    for order in orders[::8]:
        rendered = render(order.plan)
        first, second = (drawn(rendered, reader, order.seed) for reader in (0, 1))
        for key in set(first) & set(second):
            overlap = 2 * (first[key] & second[key]).sum() / (first[key].sum() + second[key].sum())
            scores[key[1]].append(overlap)
    assert 0.93 < np.mean(scores["head"]) < 0.995
    assert 0.75 < np.mean(scores["lesion"]) < 0.97


def test_the_list_of_identifying_strings_is_long_enough_to_be_looked_for(cohort):
    phi = json.loads((cohort[0] / "truth" / "phi.json").read_text(encoding="utf-8"))
    for kind in ("names", "ids", "uids", "accessions", "contact", "places", "staff"):
        assert phi["strings"][kind]
    assert phi["tokens"]["birth_dates"]
    latin = [name for kind in ("names", "staff") for name in phi["strings"][kind] if name.isascii()]
    assert min(len(name) for name in latin) >= 5
    assert all(token.isdigit() for values in phi["tokens"].values() for token in values)


def test_the_command_writes_where_it_is_told(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("OSTEOFLOW_WORKERS", "1")
    main([str(tmp_path / "out"), "--patients", "1", "--seed", "2"])
    assert "1 patients" in capsys.readouterr().out
    assert (tmp_path / "out" / "annotations" / "labels.csv").exists()


def test_it_does_not_write_among_other_files(tmp_path):
    (tmp_path / "mine.txt").write_text("kept")
    with pytest.raises(WrongUse, match="not empty"):
        write_cohort(tmp_path, 1, seed=1)


def test_contours_of_an_rtstruct_enclose_the_mask_they_were_drawn_from(tmp_path):
    order = _one_order()
    rendered = render(order.plan)
    series, shapes = rendered.series[0], drawn(rendered, 0, order.seed)
    write_rtstruct(tmp_path / "rt.dcm", order.visit, series, shapes, "a.reader", Register())
    ds = pydicom.dcmread(tmp_path / "rt.dcm")
    names = {roi.ROINumber: roi.ROIName for roi in ds.StructureSetROISequence}
    for roi in ds.ROIContourSequence:
        label, side = names[roi.ReferencedROINumber].split("_")
        again = np.zeros(series.pixels.shape, bool)
        for contour in roi.ContourSequence:
            points = np.array(contour.ContourData, float).reshape(-1, 3)
            index = (points - series.affine[:3, 3]) @ np.linalg.inv(series.affine[:3, :3]).T
            rows, columns = polygon(index[:, 1], index[:, 2], series.pixels.shape[1:])
            again[round(index[0, 0]), rows, columns] ^= True
        mask = shapes[side, label]
        assert 2 * (again & mask).sum() / (again.sum() + mask.sum()) > 0.95


def _one_order():
    made = population(1, 5)
    own = made.patients.iloc[0]
    return next(
        _orders(Path("."), made, [person("x", 5, 0, own["sex"], own["age"], 10)], hospital("x", 5), 5, "x", 1.5)
    )
