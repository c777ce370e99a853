"""Every format that factories bring: what a kept library writes is read back equal, or refused with a sentence."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from sage_ad.vlm.errors import InputError
from sage_ad.vlm.images import load_image, notes_of, shared_brightness, stored_size
from sage_ad.vlm.pictures.formats import ENDINGS, KINDS, UNREAD_ENDINGS

tifffile = pytest.importorskip("tifffile")
PROPERTY = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def noise(shape: tuple[int, ...], top: int = 255, seed: int = 0) -> np.ndarray:
    """Values over the whole range from 0 to `top`, both ends included."""
    values = np.random.default_rng(seed).integers(0, top + 1, shape)
    values.flat[0], values.flat[-1] = 0, top
    return values


def pixels(path: Path) -> np.ndarray:
    return np.asarray(load_image(path))


def upright(values: np.ndarray, orientation: int) -> np.ndarray:
    """What an EXIF or TIFF orientation means: where row 0 and column 0 of the stored array lie (TIFF 6.0, page 36)."""
    turned = {
        1: values,
        2: values[:, ::-1],
        3: values[::-1, ::-1],
        4: values[::-1],
        5: values.swapaxes(0, 1),
        6: values.swapaxes(0, 1)[:, ::-1],
        7: values[::-1, ::-1].swapaxes(0, 1),
        8: values.swapaxes(0, 1)[::-1],
    }
    return turned[orientation]


class TestReadsBackEqual:
    @PROPERTY
    @given(
        depth=st.sampled_from(["uint8", "uint16", "float16", "float32", "float64"]),
        channels=st.sampled_from([1, 3]),
        orientation=st.integers(1, 8),
        compression=st.sampled_from([None, "zlib", "lzw", "packbits"]),
        white_is_zero=st.booleans(),
        big_endian=st.booleans(),
        tiled=st.booleans(),
        size=st.tuples(st.integers(16, 40), st.integers(16, 40)),
    )
    def test_tiff(
        self,
        tmp_path: Path,
        depth: str,
        channels: int,
        orientation: int,
        compression: str | None,
        white_is_zero: bool,
        big_endian: bool,
        tiled: bool,
        size: tuple[int, int],
    ) -> None:
        if compression in ("lzw", "packbits"):
            pytest.importorskip("imagecodecs")
        white_is_zero = white_is_zero and channels == 1 and not depth.startswith("float")
        grey = noise((*size, 3) if channels == 3 else size)
        stored = {"uint8": grey, "uint16": grey * 257}.get(depth, grey / 255).astype(depth)
        if white_is_zero:
            stored = np.iinfo(stored.dtype).max - stored
        path = tmp_path / "p.tif"
        tifffile.imwrite(
            path,
            stored,
            photometric="rgb" if channels == 3 else "miniswhite" if white_is_zero else "minisblack",
            compression=compression,
            byteorder=">" if big_endian else "<",
            tile=(16, 16) if tiled else None,
            extratags=[(274, "H", 1, orientation, True)],
        )
        expected = upright(grey, orientation)
        expected = expected if channels == 3 else np.repeat(expected[..., None], 3, axis=2)
        assert (pixels(path) == expected).all()

    @PROPERTY
    @given(
        ending=st.sampled_from(["png", "apng", "bmp", "dib", "tif", "webp", "jp2", "j2k", "tga", "ppm"]),
        mode=st.sampled_from(["L", "RGB"]),
        orientation=st.integers(1, 8),
    )
    def test_lossless_files_of_pillow(self, tmp_path: Path, ending: str, mode: str, orientation: int) -> None:
        values = noise((20, 30) if mode == "L" else (20, 30, 3)).astype(np.uint8)
        path = tmp_path / f"p.{ending}"
        more: dict[str, object] = {"lossless": True, "exact": True} if ending == "webp" else {}
        if ending in ("png", "tif", "webp"):
            exif = Image.Exif()
            exif[0x0112] = orientation
            more["exif"] = exif
        else:
            orientation = 1
        Image.fromarray(values).save(path, "PNG" if ending == "apng" else None, **more)
        expected = upright(values, orientation)
        assert (pixels(path) == (expected if mode == "RGB" else expected[..., None])).all()

    @PROPERTY
    @given(
        kind=st.sampled_from(["jpg", "cmyk.jpg", "mpo.jpg", "avif", "heic", "16-bit.png"]),
        orientation=st.integers(1, 8),
        fields=st.lists(st.integers(0, 15), min_size=4, max_size=4),
    )
    def test_orientation_of_lossy_and_deep_files(
        self, tmp_path: Path, kind: str, orientation: int, fields: list[int]
    ) -> None:
        # Black and white, so that all 16 bits are used: of fewer, the range is taken from the values.
        grey = np.kron(np.reshape([0, 15, *fields], (2, 3)) * 17, np.ones((24, 24))).astype(np.uint8)
        exif, path = Image.Exif(), tmp_path / f"p.{kind}"
        exif[0x0112] = orientation
        image = Image.fromarray(grey).convert("CMYK" if kind == "cmyk.jpg" else "RGB")
        if kind == "heic":  # pillow-heif writes the turn as HEIF does, too
            heif = pytest.importorskip("pillow_heif")
            heif.encode("RGB", image.size, image.tobytes(), str(path), exif=exif.tobytes(), quality=95)
        elif kind == "16-bit.png":
            codecs = pytest.importorskip("imagecodecs")
            content, chunk = codecs.png_encode(np.asarray(image).astype(np.uint16) * 257), exif.tobytes()[6:]
            chunk = struct.pack(">I", len(chunk)) + b"eXIf" + chunk + struct.pack(">I", zlib.crc32(b"eXIf" + chunk))
            path.write_bytes(content[:33] + chunk + content[33:])  # behind the header
        else:
            more = {"save_all": True, "append_images": [image.resize((36, 24))]} if kind == "mpo.jpg" else {}
            image.save(path, "MPO" if more else None, exif=exif, quality=95, **more)
        inner = np.s_[4:-4, 4:-4]  # of each field: codecs blur its edges
        read, expected = pixels(path).astype(int), upright(grey, orientation)
        assert read.shape[:2] == expected.shape
        for top, left in np.ndindex(expected.shape[0] // 24, expected.shape[1] // 24):
            field = np.s_[24 * top : 24 * top + 24, 24 * left : 24 * left + 24]
            assert np.abs(read[field][inner] - expected[field][inner][..., None]).max() <= 12

    @pytest.mark.parametrize("ending", ["jpg", "jpeg", "jpe", "jfif", "avif", "gif"])
    def test_lossy_files_of_pillow(self, tmp_path: Path, ending: str) -> None:
        values = np.tile(np.linspace(0, 255, 32).astype(np.uint8), (32, 1))
        form = {"avif": "AVIF", "gif": "GIF"}.get(ending, "JPEG")
        Image.fromarray(values).save(tmp_path / f"p.{ending}", form)
        assert np.abs(pixels(tmp_path / f"p.{ending}").astype(int) - values[..., None]).max() <= 12

    def test_heic(self, tmp_path: Path) -> None:
        heif = pytest.importorskip("pillow_heif")
        values = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (48, 1))
        picture = heif.from_pillow(Image.fromarray(values).convert("RGB"))
        picture.save(tmp_path / "p.heic", quality=95)
        read = pixels(tmp_path / "p.heic")
        assert read.shape == (48, 64, 3)
        assert np.abs(read.astype(int) - values[..., None]).max() <= 12

    @pytest.mark.parametrize(
        ("kind", "bits"), [("MONOCHROME2", 12), ("MONOCHROME1", 12), ("MONOCHROME2", 8), ("RGB", 8)]
    )
    def test_dicom(self, tmp_path: Path, kind: str, bits: int) -> None:
        pytest.importorskip("pydicom")
        grey = noise((24, 20, 3) if kind == "RGB" else (24, 20))
        stored = (grey if bits == 8 else np.rint(grey * (4095 / 255))).astype(np.uint8 if bits == 8 else np.uint16)
        if kind == "MONOCHROME1":
            stored = (2**bits - 1) - stored
        write_dicom(tmp_path / "radiograph", stored, kind, bits)  # without an ending, as most archives have them
        read = pixels(tmp_path / "radiograph")
        assert (read == (grey if grey.ndim == 3 else grey[..., None])).all()

    def test_dicom_of_rescaled_values_keeps_them_in_order(self, tmp_path: Path) -> None:
        pytest.importorskip("pydicom")
        stored = np.arange(400, dtype=np.uint16).reshape(20, 20)
        write_dicom(tmp_path / "ct.dcm", stored, "MONOCHROME2", 12, RescaleSlope=2, RescaleIntercept=-1024)
        read = pixels(tmp_path / "ct.dcm")[..., 0].ravel().astype(int)
        assert (np.diff(read) >= 0).all()
        assert read[-1] - read[0] > 200

    @pytest.mark.parametrize("ending", ["png", "jp2", "tif"])
    def test_16_bit_colour_of_12_bits(self, tmp_path: Path, ending: str) -> None:
        codecs = pytest.importorskip("imagecodecs")
        grey = noise((20, 24, 3))
        stored = np.rint(grey * (4095 / 255)).astype(np.uint16)
        path = tmp_path / f"p.{ending}"
        if ending == "tif":
            tifffile.imwrite(path, stored, photometric="rgb", compression="lzw")
        else:
            encode = codecs.png_encode if ending == "png" else codecs.jpeg2k_encode
            path.write_bytes(encode(stored, level=0) if ending == "jp2" else encode(stored))
        assert (pixels(path) == grey).all()

    def test_lerc(self, tmp_path: Path) -> None:
        pytest.importorskip("imagecodecs")
        grey = noise((24, 24))
        tifffile.imwrite(tmp_path / "p.tif", (grey * 257).astype(np.uint16), compression="lerc")
        assert (pixels(tmp_path / "p.tif") == grey[..., None]).all()

    def test_separate_planes_and_opacity(self, tmp_path: Path) -> None:
        grey = noise((3, 20, 24))
        tifffile.imwrite(tmp_path / "p.tif", (grey * 257).astype(np.uint16), photometric="rgb", planarconfig="separate")
        assert (pixels(tmp_path / "p.tif") == np.moveaxis(grey, 0, -1)).all()
        clear = np.zeros((20, 24, 4), np.uint16)  # black, and all transparent but a pixel
        clear[0, 0, 3] = 65535
        tifffile.imwrite(tmp_path / "clear.tif", clear, photometric="rgb", extrasamples=["unassalpha"])
        assert (pixels(tmp_path / "clear.tif")[1:] == 255).all()

    @pytest.mark.parametrize("depth", [np.uint8, np.uint16])
    def test_opacity_that_nobody_filled_hides_nothing(self, tmp_path: Path, depth: type) -> None:
        colour = noise((20, 24, 3))
        stored = np.dstack([colour * (257 if depth is np.uint16 else 1), np.zeros((20, 24), int)]).astype(depth)
        tifffile.imwrite(tmp_path / "p.tif", stored, photometric="rgb", extrasamples=["unassalpha"])
        assert (pixels(tmp_path / "p.tif") == colour).all()

    @pytest.mark.parametrize("compression", ["png", "jpeg2000", "webp"])
    @pytest.mark.parametrize("channels", [1, 3])
    def test_8_bits_in_compressions_that_pillow_lacks(self, tmp_path: Path, compression: str, channels: int) -> None:
        pytest.importorskip("imagecodecs")
        colour = noise((24, 24, 3))
        stored = (colour[..., 0] if channels == 1 else colour).astype(np.uint8)
        if compression == "webp" and channels == 1:
            return
        level = {"level": 0 if compression == "jpeg2000" else 101 if compression == "webp" else 5}
        photometric = "minisblack" if channels == 1 else "rgb"
        tifffile.imwrite(
            tmp_path / "p.tif", stored, photometric=photometric, compression=compression, compressionargs=level
        )
        assert (pixels(tmp_path / "p.tif") == (stored[..., None] if channels == 1 else stored)).all()


class TestSaysWhatItLeavesOut:
    @pytest.mark.parametrize("channels", [2, 4, 5])
    def test_channels_beyond_colour(self, tmp_path: Path, channels: int) -> None:
        values = noise((20, 24, channels)).astype(np.uint8)
        tifffile.imwrite(
            tmp_path / "p.tif",
            values,
            photometric="rgb" if channels == 4 else "minisblack",
            planarconfig="contig",
            extrasamples=["unspecified"] * (1 if channels == 4 else channels - 1),
        )
        image = load_image(tmp_path / "p.tif")
        shown = 1 if channels == 2 else 3
        assert (np.asarray(image) == values[..., :shown]).all()
        assert f"p.tif has {channels} channels" in notes_of(image)[0]

    def test_an_ordinary_picture_has_no_notes(self, tmp_path: Path) -> None:
        Image.fromarray(noise((20, 20, 3)).astype(np.uint8)).save(tmp_path / "p.png")
        assert notes_of(load_image(tmp_path / "p.png")) == ()

    @pytest.mark.parametrize("orientation", [0, 9, 200])
    def test_an_orientation_that_does_not_exist(self, tmp_path: Path, orientation: int) -> None:
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(noise((20, 30)).astype(np.uint8)).save(tmp_path / "p.jpg", exif=exif)
        image = load_image(tmp_path / "p.jpg")
        assert image.size == (30, 20)
        assert f"orientation {orientation} (EXIF) does not exist" in notes_of(image)[0]

    def test_damaged_notes_of_a_camera(self, tmp_path: Path) -> None:
        stream = io.BytesIO()
        Image.fromarray(noise((20, 30)).astype(np.uint8)).save(stream, "JPEG")
        plain = stream.getvalue()
        for number, content in enumerate(
            (b"II*\0", b"XX*\0\x08\0\0\0", b"II*\0\xff\xff\xff\xff", b"II*\0\x08\0\0\0\xff\xff")
        ):
            segment = b"Exif\0\0" + content
            path = tmp_path / f"{number}.jpg"
            path.write_bytes(plain[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + plain[2:])
            image = load_image(path)  # the pixels are whole: the part is inspected
            assert image.size == (30, 20)
            assert all("EXIF" in note for note in notes_of(image))


class TestRefuses:
    def refused(self, path: Path) -> str:
        with pytest.raises(InputError) as caught:
            load_image(path)
        assert str(caught.value).startswith(str(path))
        assert "\n" not in str(caught.value)
        return str(caught.value)

    @pytest.mark.parametrize(("name", "package"), [("p.heic", "pillow-heif"), ("p.dcm", "pydicom")])
    def test_a_missing_package_is_named_with_the_remedy(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, package: str
    ) -> None:
        monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
        (tmp_path / name).write_bytes(b"\0" * 200)
        sentence = self.refused(tmp_path / name)
        assert package in sentence
        assert "sage-ad[formats]" in sentence

    def test_16_bit_colour_without_the_package(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        codecs = pytest.importorskip("imagecodecs")
        monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
        few, all_of_them = tmp_path / "few.png", tmp_path / "all.png"
        few.write_bytes(codecs.png_encode(noise((20, 20, 3), 4095).astype(np.uint16)))
        assert "sage-ad[formats]" in self.refused(few)  # 16 grey levels would be left
        grey = noise((20, 20, 3))
        all_of_them.write_bytes(codecs.png_encode((grey * 257).astype(np.uint16)))
        assert (pixels(all_of_them) == grey).all()

    @pytest.mark.parametrize("ending", UNREAD_ENDINGS)
    def test_formats_that_are_not_read(self, tmp_path: Path, ending: str) -> None:
        path = tmp_path / f"p{ending}"
        tifffile.imwrite(tmp_path / "preview.tif", noise((64, 64)).astype(np.uint8))
        path.write_bytes((tmp_path / "preview.tif").read_bytes())  # as raw files of cameras begin
        assert "is not read" in self.refused(path)

    @pytest.mark.parametrize("kind", ["P4 24 20", "P5 24 20 255", "P5 24 20 4095", "P6 24 20 255"])
    def test_pictures_behind_one_another(self, tmp_path: Path, kind: str) -> None:
        size = {"P4": 3 * 20, "P5": 24 * 20, "P6": 3 * 24 * 20}[kind[:2]] * (2 if "4095" in kind else 1)
        single = kind.encode() + b"\n" + bytes(size)
        (tmp_path / "p.ppm").write_bytes(single)
        assert pixels(tmp_path / "p.ppm").shape == (20, 24, 3)
        (tmp_path / "p.ppm").write_bytes(2 * single)
        assert "behind one another" in self.refused(tmp_path / "p.ppm")

    def test_a_jpeg_of_12_bits(self, tmp_path: Path) -> None:
        codecs = pytest.importorskip("imagecodecs")
        (tmp_path / "p.jpg").write_bytes(codecs.jpeg8_encode(noise((20, 20), 4095).astype(np.uint16), bitspersample=12))
        assert "variant that is not read" in self.refused(tmp_path / "p.jpg")

    @pytest.mark.parametrize("photometric", ["separated", "cfa"])
    def test_deep_tiffs_in_other_colour_models(self, tmp_path: Path, photometric: str) -> None:
        values = noise((20, 20, 4) if photometric == "separated" else (20, 20), 65535).astype(np.uint16)
        tifffile.imwrite(tmp_path / "p.tif", values, photometric=photometric)
        assert f"colour model {photometric.upper()}, which is not read" in self.refused(tmp_path / "p.tif")

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1.7e308])
    @pytest.mark.parametrize("depth", ["float16", "float32", "float64"])
    def test_values_that_are_no_numbers(self, tmp_path: Path, value: float, depth: str) -> None:
        values = np.full((32, 32), 0.5, depth)
        values[3, 3] = value  # the last is infinite but for float64, whose ranges it would overflow
        tifffile.imwrite(tmp_path / "p.tif", values)
        assert "no numbers" in self.refused(tmp_path / "p.tif")
        with pytest.raises(InputError, match="no numbers"):
            shared_brightness([tmp_path / "p.tif"])

    @pytest.mark.parametrize("shape", [(1, 100_000), (100_000, 1), (1, 1)])
    @pytest.mark.parametrize("ending", ["png", "tif", "bmp"])
    def test_threads_of_pixels(self, tmp_path: Path, shape: tuple[int, int], ending: str) -> None:
        Image.new("L", shape[::-1]).save(tmp_path / f"p.{ending}")
        assert "at least 16 x 16 pixels" in self.refused(tmp_path / f"p.{ending}")

    def test_a_tiff_that_claims_too_many_pixels(self, tmp_path: Path) -> None:
        tifffile.imwrite(tmp_path / "p.tif", noise((32, 32), 65535).astype(np.uint16))
        content = bytearray((tmp_path / "p.tif").read_bytes())
        for tag in (256, 257):
            place = content.find(struct.pack("<H", tag), 8)
            content[place + 2 : place + 12] = struct.pack("<HII", 4, 1, 60_000)
        (tmp_path / "p.tif").write_bytes(content)
        assert "million" in self.refused(tmp_path / "p.tif")

    def test_a_strip_that_unpacks_to_more_than_the_header_says(self, tmp_path: Path) -> None:
        path = tmp_path / "p.tif"
        tifffile.imwrite(path, noise((64, 64)).astype(np.float64), compression="zlib", rowsperstrip=64)
        with tifffile.TiffFile(path) as tiff:
            tags = tiff.pages[0].tags
            places = [tags[code].valueoffset for code in (273, 279)]
        bomb = zlib.compress(bytes(200_000_000), 9)
        content = bytearray(path.read_bytes())
        for place, value in zip(places, (len(content), len(bomb)), strict=True):
            content[place : place + 4] = struct.pack("<I", value)
        path.write_bytes(bytes(content) + bomb)
        assert "unpacks to more" in self.refused(path)

    @PROPERTY
    @given(ending=st.sampled_from(["png", "tif", "gif", "webp", "jp2", "bmp"]), data=st.data())
    def test_damage_anywhere_is_one_sentence(self, tmp_path: Path, ending: str, data: st.DataObject) -> None:
        path = tmp_path / f"p.{ending}"
        if ending == "tif":
            tifffile.imwrite(path, noise((20, 20, 3), 65535).astype(np.uint16), compression="zlib", photometric="rgb")
        else:
            Image.fromarray(noise((20, 20, 3)).astype(np.uint8)).save(path)
        content = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(1, 4))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        path.write_bytes(content[: data.draw(st.integers(len(content) // 2, len(content)))])
        with contextlib.suppress(InputError):
            assert load_image(path).mode == "RGB"


def test_endings_are_listed_once_and_sizes_come_from_headers(tmp_path: Path) -> None:
    assert len(set(ENDINGS)) == len(ENDINGS) == sum(len(kind.endings) for kind in KINDS)
    assert not set(ENDINGS) & set(UNREAD_ENDINGS)
    Image.new("RGB", (40, 20)).save(tmp_path / "p.png")
    assert stored_size(tmp_path / "p.png") == (40, 20)


def write_dicom(path: Path, values: np.ndarray, kind: str, bits: int, **more: object) -> None:
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID = generate_uid()
    made.Rows, made.Columns = values.shape[:2]
    made.SamplesPerPixel = 3 if kind == "RGB" else 1
    if kind == "RGB":
        made.PlanarConfiguration = 0
    made.PhotometricInterpretation = kind
    made.BitsAllocated = 8 * values.dtype.itemsize
    made.BitsStored, made.HighBit, made.PixelRepresentation = bits, bits - 1, 0
    for name, value in more.items():
        setattr(made, name, value)
    made.PixelData = values.tobytes()
    made.save_as(path, enforce_file_format=True)
