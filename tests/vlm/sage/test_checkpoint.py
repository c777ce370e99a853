"""The shipped checkpoint: small, ours alone, loaded by name, and what it says of a known part."""

from __future__ import annotations

import json
import shutil

import pytest

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")

from sage_ad.vlm.backends.registry import load_backend  # noqa: E402
from sage_ad.vlm.backends.sage_backend import SageBackend  # noqa: E402
from sage_ad.vlm.errors import BackendError, InputError  # noqa: E402
from sage_ad.vlm.evidence.extractor import EvidenceExtractor  # noqa: E402
from sage_ad.vlm.images import load_image  # noqa: E402
from sage_ad.vlm.sage.checkpoint import (  # noqa: E402
    BEST,
    FOLDER,
    SETTINGS,
    WEIGHTS,
    base_model,
    is_checkpoint,
    load_checkpoint,
    read_settings,
    shipped,
)
from sage_ad.vlm.sage.generation import PartQuery  # noqa: E402
from sage_ad.vlm.sage.visual_inputs import visual_inputs_of  # noqa: E402

QUESTIONS = ("Is this solar cell defective?", "Does this solar cell match the normal standard?")


@pytest.fixture(scope="module")
def sage() -> SageBackend:
    backend = load_backend("sage-tiny")
    assert isinstance(backend, SageBackend)
    return backend


@pytest.fixture(scope="module")
def cells(elpv):
    """A visibly cracked cell and a good one of its type."""
    files = {path.name: path for paths in elpv.values() for path in paths}
    return load_image(files["cell0404.png"]), load_image(files["cell0532.png"])


def query(image, reference, facts=()) -> PartQuery:
    extractor = EvidenceExtractor()
    seen = extractor.extract(image, extractor.prepare([reference]))
    return PartQuery(visual_inputs_of(seen), QUESTIONS, ("anomalous", "normal"), facts, "solar cell")


class TestShipped:
    def test_it_is_small_and_holds_no_weights_of_the_base(self):
        from safetensors import safe_open

        folder = FOLDER / BEST
        assert sum(file.stat().st_size for file in folder.iterdir()) < 40e6
        with safe_open(folder / WEIGHTS, "pt") as file:
            names = list(file.keys())
        assert names
        assert all("lora_" in name or "fusion" in name for name in names)

    def test_its_card_names_data_licences_command_and_limits(self):
        card = (FOLDER / BEST / "README.md").read_text(encoding="utf-8").casefold()
        for word in ("licence", "sage-train sft", "limits", "dev", "test", "smollm2", "efficientnet"):
            assert word in card, word

    def test_names_stand_for_folders(self):
        assert shipped("sage-tiny") == FOLDER / BEST
        assert shipped("some/model") is None
        with pytest.raises(InputError, match="no shipped checkpoint 'sage-tiny-xl'"):
            load_backend("sage-tiny-xl")


def test_merged_it_is_bit_by_bit_what_peft_makes():
    settings = read_settings(FOLDER / BEST)
    made, _ = base_model(settings["base"], settings["config"], settings["processor"], torch.bfloat16)
    expected = peft.PeftModel.from_pretrained(made, str(FOLDER / BEST)).merge_and_unload().state_dict()
    merged = load_checkpoint(FOLDER / BEST)[0].state_dict()
    assert merged.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in merged.items())


class TestKnownAnswer:
    def test_a_cracked_cell_is_anomalous_and_a_good_one_is_not(self, sage, cells):
        cracked, good = cells
        bad, fine = sage.answer_parts([query(cracked, good), query(good, good)])
        assert (bad.state, bad.verdicts) == ("anomalous", (True, False))
        assert (fine.state, fine.verdicts) == ("normal", (False, True))
        assert all(text.endswith(".") for text in bad.texts)
        assert bad.texts != fine.texts

    def test_facts_and_picture_reach_the_model(self, sage, cells):
        """Soft facts enter through fusion attention alone: other facts, or the same beside another picture, change it."""
        cracked, good = cells
        facts = ("A crack is a thin dark line.", "A stain is a dull area.")
        first, other = query(cracked, good, facts), query(cracked, good, ("Fingers are thin bright lines.",) * 2)
        prefixes = [self._fact_tokens(sage, q) for q in (first, other, query(good, good, facts))]
        assert not torch.allclose(prefixes[0], prefixes[1])
        assert not torch.allclose(prefixes[0], prefixes[2])

    def _fact_tokens(self, sage, asked):
        from sage_ad.vlm.sage.generation import prefix_inputs

        inputs = prefix_inputs(
            sage.sage_processor, [asked.visual], [asked.visual.measured(asked.product)], [list(asked.facts)],
            [list(asked.questions)], "soft", sage.sage.config.calibration,
        )  # fmt: skip
        inputs.pop("tails")
        with torch.no_grad():
            return sage.sage.encode(inputs["input_ids"], inputs)["fact_features"].float()

    def test_it_still_writes_plain_text(self, sage):
        text = sage.generate([{"role": "user", "content": "Name a metal."}], max_new_tokens=12)
        assert text.strip()


class TestFaults:
    def test_a_folder_that_is_none_is_named(self, tmp_path):
        assert not is_checkpoint(tmp_path)
        with pytest.raises(InputError, match="no SAGE checkpoint"):
            load_checkpoint(tmp_path)

    def test_settings_that_are_broken_are_named(self, tmp_path):
        (tmp_path / SETTINGS).write_text("{")
        with pytest.raises(InputError, match="no SAGE checkpoint that can be read"):
            load_checkpoint(tmp_path)

    def test_weights_that_are_damaged_are_an_error(self, tmp_path):
        shutil.copytree(FOLDER / BEST, tmp_path / "copy")
        weights = tmp_path / "copy" / WEIGHTS
        weights.write_bytes(weights.read_bytes()[:5000])
        for load in (load_checkpoint, lambda folder: load_backend(str(folder))):
            with pytest.raises(BackendError, match="cannot be put on"):
                load(tmp_path / "copy")

    def test_a_base_that_is_missing_is_named(self, tmp_path):
        shutil.copytree(FOLDER / BEST, tmp_path / "copy")
        file = tmp_path / "copy" / SETTINGS
        file.write_text(json.dumps({**json.loads(file.read_text()), "base": str(tmp_path / "nowhere")}))
        with pytest.raises(InputError, match="nowhere"):
            load_checkpoint(tmp_path / "copy")
