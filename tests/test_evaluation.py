import csv
import re

import numpy as np
import pytest
from PIL import Image

from jpegsr import degradation, evaluation, reports
from jpegsr.errors import UserError


@pytest.fixture(scope="module")
def comparisons(photo_folder) -> list[evaluation.Comparison]:
    methods = {"identity": lambda picture: picture.repeat(2, axis=0).repeat(2, axis=1)}
    return list(evaluation.evaluate(methods, {"photos": photo_folder}, 2, (0, 10)))


@pytest.fixture(scope="module")
def scores(comparisons) -> list[evaluation.Score]:
    return [score for comparison in comparisons for score, _ in comparison.results.values()]


def test_every_picture_quality_and_method_has_a_score(scores):
    assert len(scores) == 9 * 2 * 2
    assert len({(s.image, s.quality, s.method) for s in scores}) == len(scores)


def test_methods_get_the_degraded_picture(comparisons):
    for comparison in comparisons:
        quality = comparison.results["bicubic"][0].quality
        expected = degradation.jpeg(degradation.downscale(comparison.original, 2), quality)
        np.testing.assert_array_equal(comparison.compressed, expected)


def test_bicubic_is_above_nearest_neighbour_and_clean_above_jpeg(scores):
    means = {(q, m): reports.mean_score(scores, "photos", q, m) for q in (0, 10) for m in ("bicubic", "identity")}
    for measure in ("psnr_y", "ssim_y", "psnr_rgb"):
        assert means[0, "bicubic"][measure] > means[0, "identity"][measure]
        assert means[0, "bicubic"][measure] > means[10, "bicubic"][measure]


def test_border_is_left_out():
    original = np.zeros((32, 32, 3), np.uint8)
    result = original.copy()
    result[:2] = 255
    assert evaluation.score_picture(original, result, 2)[0] == float("inf")
    assert evaluation.score_picture(original, result, 1)[0] < 20


def test_mistakes_in_a_folder_show_before_the_first_score(tmp_path, photo):
    def first_comparison():
        return next(evaluation.evaluate({}, {"photos": tmp_path}, 2, (10,)))

    with pytest.raises(UserError, match="no picture in"):
        first_comparison()
    Image.fromarray(photo).save(tmp_path / "good.png")
    (tmp_path / "sub").mkdir()
    Image.fromarray(photo[:12, :40]).save(tmp_path / "sub" / "flat.png")
    with pytest.raises(UserError, match=r"flat.png.*too small"):
        first_comparison()
    (tmp_path / "sub" / "flat.png").write_text("no picture")
    with pytest.raises(UserError, match="not a picture"):
        first_comparison()


def test_pictures_of_one_name_are_told_apart(tmp_path, photo):
    (tmp_path / "sub").mkdir()
    for path in ("x.png", "sub/x.png"):
        Image.fromarray(photo[:40, :40]).save(tmp_path / path)
    assert [name for name, _ in evaluation.list_test_pictures(tmp_path, 2)] == ["sub/x", "x"]
    Image.fromarray(photo[:40, :40]).save(tmp_path / "x.bmp")
    assert [name for name, _ in evaluation.list_test_pictures(tmp_path, 2)] == ["sub/x.png", "x.bmp", "x.png"]


def test_missing_folder_shows_before_the_first_score(photo_folder, tmp_path):
    with pytest.raises(UserError, match="nowhere"):
        next(evaluation.evaluate({}, {"photos": photo_folder, "other": tmp_path / "nowhere"}, 2, (10,)))


def test_reports_hold_the_scores_and_their_origin(scores, tmp_path):
    models = {"identity": {"sha256": "0" * 64}}
    origin = reports.origin_of("jpegsr evaluate --example", "as usual", models)
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?|unknown .*", origin["commit"])
    reports.write_csv(tmp_path / "results.csv", scores)
    with open(tmp_path / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["psnr_y"]) for row in rows] == pytest.approx([s.psnr_y for s in scores], abs=1e-4)
    text = reports.markdown(scores, origin)
    average = reports.mean_score(scores, "photos", 10, "bicubic")["psnr_y"]
    assert f"| photos | Q10 | bicubic | {average:.3f} |" in text
    assert "| method | input | astronaut0 |" in text
    assert "jpegsr evaluate --example" in text
    assert "0" * 64 in text


def test_contact_sheet_shows_all_pictures(comparisons, tmp_path):
    sheet = reports.ContactSheet()
    for comparison in comparisons[:2]:
        sheet.add(comparison)
    sheet.save(tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as image:
        pixels = np.asarray(image)
    # Two rows of four columns: original, input, bicubic and the method, each 300 pixels high above its enlarged part.
    assert pixels.shape[0] > 2 * (300 + 256)
    assert pixels.shape[1] > 4 * 300
    original = Image.fromarray(comparisons[0].original)
    shown = np.asarray(original.resize((round(original.width * 300 / original.height), 300), Image.Resampling.LANCZOS))
    assert (pixels[:300, : shown.shape[1]] == shown).mean() > 0.9  # but for the marker of the enlarged part


def test_most_detailed_part_is_found():
    image = np.full((100, 120, 3), 128, np.uint8)
    image[40:60, 70:90] = np.random.default_rng(0).integers(0, 256, (20, 20, 3))
    top, left = reports.most_detailed(image, 24)
    assert 35 <= top <= 41
    assert 65 <= left <= 71
