import logging
import shutil
import threading

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from jpegsr import data, degradation, images
from jpegsr.config import DataConfig
from jpegsr.errors import DamagedDataError, UserError


def make_sampler(*folders, scale=2, **settings) -> data.PatchSampler:
    settings = {"patch_size": 24, "holdout_every": 0, **settings}
    return data.PatchSampler(DataConfig(sources=tuple((str(folder), 0.0) for folder in folders), **settings), scale)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_tensorflow_and_numpy_paths_give_the_same_patches(photo_folder, scale):
    sampler = make_sampler(photo_folder, scale=scale, double_share=0.5, clean_share=0.2, chroma_444_share=0.5)
    batch = next(iter(data.patch_dataset(sampler, 24)))
    for index in range(24):
        for from_graph, reference in zip(batch, sampler.patch(index), strict=True):
            np.testing.assert_array_equal(from_graph[index], reference)


def test_patches_depend_on_seed_and_index_alone(photo_folder):
    first, second = make_sampler(photo_folder), make_sampler(photo_folder)
    second.patch(7)
    for ours, theirs in zip(first.patch(3), second.patch(3), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    other_seed = make_sampler(photo_folder, seed=1)
    assert any(not np.array_equal(a, b) for a, b in zip(first.patch(3), other_seed.patch(3), strict=True))


def test_stream_resumes_at_an_index_and_is_shared_by_workers(photo_folder):
    sampler = make_sampler(photo_folder)
    whole = next(iter(data.patch_dataset(sampler, 12))).hr.numpy()
    np.testing.assert_array_equal(next(iter(data.patch_dataset(sampler, 4, first_index=8))).hr, whole[8:])
    halves = [next(iter(data.patch_dataset(sampler, 6, num_workers=2, worker=worker))).hr.numpy() for worker in (0, 1)]
    np.testing.assert_array_equal(halves[0], whole[0::2])
    np.testing.assert_array_equal(halves[1], whole[1::2])


def test_low_resolution_patch_is_the_reduced_patch(photo_folder):
    sampler = make_sampler(photo_folder, quality=(100, 100), double_share=0.0, clean_share=1.0)
    for index in range(8):
        patch = sampler.patch(index)
        np.testing.assert_array_equal(patch.lr, patch.compressed)
        inner = np.s_[4:-4, 4:-4]
        np.testing.assert_array_equal(degradation.downscale(patch.hr, 2)[inner], patch.lr[inner])


def test_shares_and_ranges_are_those_of_the_config(photo_folder):
    sampler = make_sampler(photo_folder, quality=(20, 60), clean_share=0.2, double_share=0.3, chroma_444_share=0.4)
    draws = [sampler.draw(index)[1] for index in range(800)]
    compressed = [draw for draw in draws if draw.quality]
    assert {draw.quality for draw in compressed} == set(range(20, 61))
    assert np.mean([draw.quality == 0 for draw in draws]) == pytest.approx(0.2, abs=0.05)
    assert np.mean([draw.first_quality > 0 for draw in compressed]) == pytest.approx(0.3, abs=0.06)
    assert np.mean([draw.chroma_444 for draw in draws]) == pytest.approx(0.4, abs=0.06)
    # The patch's corner takes every position within a block, so the network sees the grid at any shift.
    assert {draw.top % 8 for draw in draws} == {draw.left % 8 for draw in draws} == set(range(8))


def test_unshifted_patches_start_on_a_block(photo_folder):
    sampler = make_sampler(photo_folder, shifted_share=0.0, double_share=0.0)
    assert {(draw.top, draw.left) for draw in (sampler.draw(index)[1] for index in range(50))} == {(0, 0)}


def test_scale_augmentation_reduces_originals_as_far_as_they_reach(tmp_path, photo):
    Image.fromarray(photo).save(tmp_path / "photo.png")
    plain, reduced = (make_sampler(tmp_path, scale_augmentation=least) for least in (1.0, 0.3))

    def detail(sampler) -> float:
        crops = [sampler.draw(index)[0] for index in range(60)]
        assert {crop.shape for crop in crops} == {(sampler.crop_size, sampler.crop_size, 3)}
        return np.mean([np.abs(np.diff(crop.astype(int), axis=0)).mean() for crop in crops])

    assert detail(reduced) > 1.1 * detail(plain)
    Image.fromarray(photo[: plain.crop_size, : plain.crop_size]).save(tmp_path / "photo.png")  # leaves nothing to choose
    only = make_sampler(tmp_path, scale_augmentation=0.5).draw(3)[0]
    assert np.sort(only.ravel()).tolist() == np.sort(photo[: plain.crop_size, : plain.crop_size].ravel()).tolist()


def test_weights_share_out_the_draws(tmp_path, photo):
    for name in ("often", "seldom"):
        (tmp_path / name).mkdir()
        Image.fromarray(photo).save(tmp_path / name / f"{name}.png")
    config = DataConfig(sources=((str(tmp_path / "often"), 3.0), (str(tmp_path / "seldom"), 1.0)), holdout_every=0)
    names = [data.PatchSampler(config, 2).name(index) for index in range(300)]
    assert np.mean([name == "often.png" for name in names]) == pytest.approx(0.75, abs=0.08)


def test_bad_files_are_named_counted_and_skipped(tmp_path, photo, caplog):
    Image.fromarray(photo).save(tmp_path / "good.png")
    (tmp_path / "text.jpg").write_text("no picture")
    Image.fromarray(photo[:20, :20]).save(tmp_path / "small.png")
    whole = degradation.encode_jpeg(photo, 90)
    (tmp_path / "truncated.jpg").write_bytes(whole[: len(whole) // 2])
    with caplog.at_level(logging.WARNING, "jpegsr"):
        sampler = make_sampler(tmp_path)
        names = {sampler.name(index) for index in range(30)}
    assert names == {"good.png"}
    assert sampler.caches[0].num_skipped == 1
    for name in ("text.jpg", "small.png", "truncated.jpg", "skipped 2 files"):
        assert sum(name in message for message in caplog.messages) == 1, name


def test_folder_without_usable_picture_says_what_was_looked_for(tmp_path):
    with pytest.raises(UserError, match=r"\.png, \.jpg.*at least 80 pixels"):
        make_sampler(tmp_path)
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(UserError, match="no usable picture"):
        make_sampler(tmp_path)


def test_source_of_undecodable_pictures_is_an_error_at_once(tmp_path, photo):
    whole = degradation.encode_jpeg(photo, 90)
    (tmp_path / "truncated.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="none of its 1 can be decoded"):
        make_sampler(tmp_path)


def test_missing_folder_and_missing_data_are_errors(tmp_path):
    with pytest.raises(UserError, match="nowhere"):
        make_sampler(tmp_path / "nowhere")
    with pytest.raises(UserError, match="--data"):
        data.PatchSampler(DataConfig(), 2)


def test_cache_stays_within_its_bound(photo_folder):
    source = data.open_source(str(photo_folder), 48)
    one_image = source.read(0).nbytes
    cache = data.ImageCache(source, 3.5 * one_image, 48)
    threads = [threading.Thread(target=lambda: [cache.get(index) for index in range(len(source.names))]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cache.cached_bytes == 3 * one_image
    for index in range(len(source.names)):
        np.testing.assert_array_equal(cache.get(index)[1], source.read(index))


def test_held_out_pictures_are_not_trained_on(photo_folder):
    sampler = make_sampler(photo_folder, holdout_every=3)
    held_out = {name for source in sampler.validation_sources for name in source.names}
    assert len(held_out) == 3
    assert not held_out & {sampler.name(index) for index in range(100)}
    crops = data.validation_images(sampler.validation_sources, 101, 2)
    assert [crop.shape for crop in crops] == [(100, 100, 3)] * 3


def test_the_same_pictures_are_held_out_whatever_the_size_of_patches(photo_folder, tmp_path, photo):
    shutil.copytree(photo_folder, tmp_path / "photos")
    for name, side in (("0", 50), ("b", 90)):  # one before all others in order, one among them
        images.write_image(tmp_path / "photos" / f"{name}.png", photo[:side, :side])
    held_out = []
    for patch_size in (12, 24, 40):
        sampler = make_sampler(tmp_path / "photos", patch_size=patch_size, holdout_every=2)
        held_out.append({name for source in sampler.validation_sources for name in source.names})
        assert not held_out[-1] & {sampler.name(index) for index in range(100)}
    assert held_out[0] >= held_out[1] >= held_out[2]
    assert len(held_out[2]) > 1


def test_odd_metadata_names_its_file(tmp_path, photo):
    Image.fromarray(photo).save(tmp_path / "odd.png", exif=b"II*\0")
    with pytest.raises(UserError, match=r"cannot read '.*odd\.png'"):
        images.read_rgb(tmp_path / "odd.png")


def test_damaged_validation_data_is_not_passed_over():
    def read(index):
        raise DamagedDataError("a shard is damaged")

    with pytest.raises(DamagedDataError):
        data.validation_images([data.ImageSource("prepared:x", ["a"], read)], 64, 2)


class JpegsrPhotos(tfds.core.GeneratorBasedBuilder):
    """A TFDS data set like div2k: an HR and an LR image per example, from local arrays."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [  # noqa: RUF012 (the name and kind are TFDS's)
        tfds.core.BuilderConfig(name="bicubic_x2")
    ]

    def _info(self):
        features = tfds.features.FeaturesDict({"lr": tfds.features.Image(), "hr": tfds.features.Image()})
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(4), "validation": self._generate_examples(2)}

    def _generate_examples(self, count):
        for i in range(count):
            hr = np.random.default_rng(i).integers(0, 256, (160, 128, 3), dtype=np.uint8)
            yield i, {"hr": hr, "lr": hr[::2, ::2]}


def test_tfds_source_reads_the_high_resolution_side():
    source = data.open_source("tfds:jpegsr_photos/bicubic_x2", 80)
    assert len(source.names) == 4
    originals = [np.random.default_rng(i).integers(0, 256, (160, 128, 3), dtype=np.uint8).tobytes() for i in range(4)]
    assert {source.read(index).tobytes() for index in range(4)} == set(originals)
    assert len(data.open_source("tfds:jpegsr_photos/bicubic_x2:validation", 80).names) == 2
    sampler = make_sampler("tfds:jpegsr_photos/bicubic_x2")
    assert sampler.patch(0).hr.shape == (48, 48, 3)


@pytest.mark.parametrize("name", ["tfds:no_such_data", "tfds:jpegsr_photos/bicubic_x2:no_such_split"])
def test_unknown_tfds_name_or_split_is_one_line(name):
    with pytest.raises(UserError) as error:
        data.open_source(name, 80)
    assert "\n" not in str(error.value)
