"""SAGE around vision-language models of Hugging Face: tiny random ones of every tested family, one test for all."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from PIL import Image  # noqa: E402
from tiny_models import (  # noqa: E402
    IMAGE_ID,
    TEMPLATE,
    VOCABULARY,
    WRAPPED,
    tiny_idefics3,
    tiny_language_model,
    tiny_llava,
    tiny_tokenizer,
    vision_inputs,
)
from transformers import AutoModelForImageTextToText, AutoProcessor  # noqa: E402

from sage_ad.vlm.errors import InputError  # noqa: E402
from sage_ad.vlm.sage.modeling_sage import SageForConditionalGeneration  # noqa: E402
from sage_ad.vlm.sage.processing_sage import SageProcessor  # noqa: E402
from sage_ad.vlm.sage.wrapping import from_base  # noqa: E402

FACT_ID = VOCABULARY
HEADER, STATES = [30, 31, 32], [[40], [41, 42]]
FAMILIES = pytest.mark.parametrize("kind", sorted(WRAPPED))


def wrap(kind, **settings):
    model = from_base(WRAPPED[kind](), distinct=3, state_words=STATES, answer_header=HEADER, fusion_heads=4, **settings)
    torch.manual_seed(0)
    for name, linear in model.fusion.named_modules():
        if isinstance(linear, torch.nn.Linear) and "image_projection" not in name:
            torch.nn.init.normal_(linear.weight, std=0.3)
    return model


def pictures(seed, n=1):
    return torch.randn(n, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def make_inputs(kind, rows=(0, 1), references=(10, None), evidence=(1.5, float("nan")), facts=(0, 1)):
    """Inputs by hand, as the base's processor would make them; the first sample with a reference, the second not."""
    images, tokens = vision_inputs(kind, torch.cat([pictures(r) for r in rows]))
    prompts = [
        [1, 20 + r, *[IMAGE_ID] * tokens, FACT_ID, FACT_ID, *([50, 51, 52] if r else [60]), *HEADER] for r in rows
    ]
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
    words = torch.randint(50, 120, (2, 2, 5), generator=torch.Generator().manual_seed(7))[[facts[r] for r in rows]]
    inputs = {"input_ids": ids, "attention_mask": mask, **images, "fact_ids": words,
              "evidence_log_odds": torch.tensor([evidence[r] for r in rows])}  # fmt: skip
    if kind == "qwen2_5_vl":
        inputs["mm_token_type_ids"] = (ids == IMAGE_ID).int()
    there = [references[r] for r in rows if references[r] is not None]
    if there:
        known, _ = vision_inputs(kind, torch.cat([pictures(r) for r in there]))
        inputs |= {"reference_" + k: v for k, v in known.items()}
        inputs["reference_rows"] = torch.tensor([0 if references[r] is None else tokens for r in rows])
    return inputs


def greedy(model, inputs, new=5):
    return model.generate(**inputs, max_new_tokens=new, do_sample=False)[:, -new:]


@FAMILIES
class TestEveryFamily:
    def test_forward_and_backward(self, kind):
        model = wrap(kind).train()
        inputs = make_inputs(kind)
        labels = inputs["input_ids"].masked_fill(inputs["input_ids"] != 60, -100)
        output = model(**inputs, labels=labels)
        output.loss.backward()
        assert output.logits.shape == (*inputs["input_ids"].shape, model.config.vocab_size)
        learnt = {
            n.split(".")[0] for n, p in model.fusion.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0
        }
        assert {"attention", "fact_projection", "image_projection"} <= learnt

    def test_an_untrained_shell_leaves_the_base_as_it_was(self, kind):
        base = WRAPPED[kind]()
        images, tokens = vision_inputs(kind, pictures(0))
        ids = torch.tensor([[1, 20, *[IMAGE_ID] * tokens, 60, 61]])
        images |= {"mm_token_type_ids": (ids == IMAGE_ID).int()} if kind == "qwen2_5_vl" else {}
        before = base(input_ids=ids, attention_mask=torch.ones_like(ids), **images).logits
        model = from_base(base, fusion_heads=4)
        after = model(input_ids=ids, attention_mask=torch.ones_like(ids), **images).logits
        torch.testing.assert_close(after[..., :VOCABULARY], before, rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize("change", ["reference", "facts"])
    def test_reference_and_facts_change_forward_and_generation(self, kind, change):
        model = wrap(kind)
        before = make_inputs(kind)
        after = make_inputs(kind, references=(77, None)) if change == "reference" else make_inputs(kind, facts=(1, 0))
        with torch.no_grad():
            assert (model(**before).logits - model(**after).logits)[0].abs().max() > 1e-4
        first, second = (
            torch.stack(model.generate(**x, max_new_tokens=3, output_logits=True, return_dict_in_generate=True).logits)
            for x in (before, after)
        )
        assert (first - second)[1:, 0].abs().max() > 1e-4

    def test_evidence_decides_an_untrained_verdict(self, kind):
        model = wrap(kind)
        inputs = make_inputs(kind, evidence=(2.0, -3.0))
        assert model.state_log_odds(**inputs).tolist() == pytest.approx([2.0, -3.0], abs=1e-4)
        assert greedy(model, inputs)[:, 0].tolist() == [STATES[1][0], STATES[0][0]]

    def test_generation_sees_what_forward_sees(self, kind):
        model = wrap(kind)
        inputs = make_inputs(kind)
        made = model.generate(
            **inputs, max_new_tokens=4, do_sample=False, output_logits=True, return_dict_in_generate=True
        )
        mask = torch.cat((inputs["attention_mask"], torch.ones(2, 4, dtype=torch.long)), dim=1)
        whole = {**inputs, "input_ids": made.sequences, "attention_mask": mask}
        if "mm_token_type_ids" in inputs:
            whole["mm_token_type_ids"] = (made.sequences == IMAGE_ID).int()
        with torch.no_grad():
            logits = model(**whole).logits
        for step, seen in enumerate(made.logits):
            torch.testing.assert_close(seen, logits[:, inputs["input_ids"].shape[1] - 1 + step], rtol=1e-3, atol=1e-4)

    def test_batch_equals_single(self, kind):
        model = wrap(kind)
        together = make_inputs(kind)
        with torch.no_grad():
            logits, said = model(**together).logits, greedy(model, together)
            for row in (0, 1):
                alone = make_inputs(kind, rows=(row,))
                length = alone["input_ids"].shape[1]
                torch.testing.assert_close(model(**alone).logits[0], logits[row, -length:], rtol=1e-3, atol=1e-4)
                assert torch.equal(greedy(model, alone)[0], said[row])

    def test_saved_and_loaded_is_equal(self, kind, tmp_path):
        model = wrap(kind)
        model.save_pretrained(tmp_path)
        again = AutoModelForImageTextToText.from_pretrained(tmp_path).eval()
        assert isinstance(again, SageForConditionalGeneration)
        inputs = make_inputs(kind)
        with torch.no_grad():
            assert torch.equal(again(**inputs).logits, model(**inputs).logits)
        assert torch.equal(greedy(again, inputs), greedy(model, inputs))

    def test_beams_keep_each_samples_picture(self, kind):
        model = wrap(kind)
        inputs = make_inputs(kind, evidence=(4.0, -4.0))
        beams = model.generate(**inputs, max_new_tokens=3, num_beams=2, do_sample=False)[:, -3:]
        for row in (0, 1):
            alone = make_inputs(kind, rows=(row,), evidence=(4.0, -4.0))
            assert torch.equal(
                model.generate(**alone, max_new_tokens=3, num_beams=2, do_sample=False)[0, -3:], beams[row]
            )

    def test_questions_that_share_a_prefix_get_the_same_answers(self, kind):
        model = wrap(kind)
        one = make_inputs(kind, rows=(0,))
        head = one["input_ids"][:, : -len(HEADER) - 1]
        prompts = [torch.tensor([*head[0].tolist(), *question, *HEADER]) for question in ([60, 61], [70], [71, 72, 73])]
        longest = max(map(len, prompts))
        ids = torch.stack([torch.nn.functional.pad(p, (longest - len(p), 0)) for p in prompts])
        mask = torch.stack([torch.nn.functional.pad(torch.ones_like(p), (longest - len(p), 0)) for p in prompts])
        rest = {k: v for k, v in one.items() if k not in ("input_ids", "attention_mask", "mm_token_type_ids")}
        types = {"mm_token_type_ids": (ids == IMAGE_ID).int()} if kind == "qwen2_5_vl" else {}
        said = model.generate_shared(ids, mask, **rest, **types, max_new_tokens=5, do_sample=False)[:, -5:]
        for row, prompt in enumerate(prompts):
            alone = {**one, "input_ids": prompt[None], "attention_mask": torch.ones_like(prompt)[None]}
            if types:
                alone["mm_token_type_ids"] = (prompt[None] == IMAGE_ID).int()
            assert torch.equal(greedy(model, alone)[0], said[row])

    def test_bf16_lora_and_gradient_checkpointing_train_together(self, kind):
        peft = pytest.importorskip("peft")
        model = wrap(kind).to(torch.bfloat16)
        settings = peft.LoraConfig(
            r=2, target_modules=r".*(language_model|text_model).*(q|v)_proj", modules_to_save=["fusion"]
        )
        tuned = peft.get_peft_model(model, settings).train()
        tuned.gradient_checkpointing_enable()
        tuned.enable_input_require_grads()
        inputs = make_inputs(kind)
        inputs = {k: v.bfloat16() if v.is_floating_point() and "pixel" in k else v for k, v in inputs.items()}
        loss = tuned(**inputs, labels=inputs["input_ids"].masked_fill(inputs["input_ids"] != 60, -100)).loss
        loss.backward()
        assert torch.isfinite(loss)
        learnt = [n for n, p in tuned.named_parameters() if p.grad is not None and torch.isfinite(p.grad).all()]
        assert any("lora_B" in n for n in learnt)
        assert any("fusion" in n for n in learnt)


class TestWholePath:
    """Pictures and words in, words out, with the base's own processor where it works without torchvision."""

    @staticmethod
    def picture(seed):
        return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (40, 48, 3), dtype=np.uint8))

    @staticmethod
    def llava_processor():
        from transformers import LlavaProcessor
        from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

        pixels = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
        return LlavaProcessor(
            pixels, tiny_tokenizer(), patch_size=8, vision_feature_select_strategy="default",
            num_additional_image_tokens=1, chat_template=TEMPLATE,
        )  # fmt: skip

    @staticmethod
    def idefics3_processor():
        from transformers import Idefics3Processor
        from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

        pixels = Idefics3ImageProcessorPil(size={"longest_edge": 32}, max_image_size={"longest_edge": 32})
        words = tiny_tokenizer(("<image>", "<fake_token_around_image>", "<end_of_utterance>", "<global-img>"))
        return Idefics3Processor(pixels, words, image_seq_len=4, chat_template=TEMPLATE)

    @pytest.fixture(params=["llava", "idefics3"])
    def whole(self, request):
        base = tiny_llava() if request.param == "llava" else tiny_idefics3()
        processor = SageProcessor.from_base(getattr(self, f"{request.param}_processor")())
        model = from_base(base, processor=processor, fusion_heads=4, distinct=3)
        return model, processor

    def ask(self, processor, rows=(0, 1), **kwargs):
        return processor(
            images=[self.picture(r) for r in rows],
            text=[("Is it normal?", "Is there a scratch in the upper left area?")[r] for r in rows],
            references=[([self.picture(10), self.picture(11)], None)[r] for r in rows],
            facts=[(["a hole"], ["a scratch", "no crack in the centre"])[r] for r in rows],
            evidence=[(1.0, -2.0)[r] for r in rows],
            **kwargs,
        )

    def test_pictures_and_words_to_answers(self, whole):
        model, processor = whole
        inputs = self.ask(processor)
        answers = processor.batch_decode(greedy(model, inputs, 4))
        assert answers[0].startswith("anomalous")
        assert answers[1].startswith("normal")
        loss = model(**self.ask(processor, answers=["anomalous. False.", "normal. True."])).loss
        assert torch.isfinite(loss)

    def test_batch_equals_single_with_the_processor(self, whole):
        model, processor = whole
        together = self.ask(processor)
        with torch.no_grad():
            logits = model(**together).logits
            for row in (0, 1):
                alone = self.ask(processor, rows=(row,))
                torch.testing.assert_close(
                    model(**alone).logits[0], logits[row, -alone["input_ids"].shape[1] :], rtol=1e-3, atol=1e-4
                )

    def test_model_and_processor_load_through_the_auto_classes(self, whole, tmp_path):
        model, processor = whole
        model.save_pretrained(tmp_path)
        processor.save_pretrained(tmp_path)
        again, reader = AutoModelForImageTextToText.from_pretrained(tmp_path), AutoProcessor.from_pretrained(tmp_path)
        inputs, same = self.ask(processor), self.ask(reader)
        assert all(torch.equal(inputs[k], same[k]) for k in inputs)
        assert torch.equal(greedy(again, same), greedy(model, inputs))

    def test_reference_shown_in_the_prompt(self):
        processor = SageProcessor.from_base(self.llava_processor(), show_reference=True)
        model = from_base(tiny_llava(), processor=processor, fusion_heads=4)
        inputs = self.ask(processor)
        assert (inputs["input_ids"] == IMAGE_ID).sum(dim=1).tolist() == [48, 16]
        assert inputs["reference_rows"].tolist() == [32, 0]
        assert torch.isfinite(model(**inputs).logits).all()


class TestWrongBases:
    def test_language_model_without_eyes_raises(self):
        with pytest.raises(InputError, match="patch_channels"):
            from_base(tiny_language_model())

    def test_unknown_name_raises_one_sentence(self):
        with pytest.raises(InputError, match="nowhere/nothing"):
            from_base("nowhere/nothing")

    def test_folder_of_a_language_model_raises(self, tmp_path):
        tiny_language_model().save_pretrained(tmp_path)
        with pytest.raises(InputError, match="does not read pictures"):
            from_base(str(tmp_path))

    def test_folder_of_a_vision_language_model_is_wrapped(self, tmp_path):
        tiny_llava().save_pretrained(tmp_path)
        model = from_base(str(tmp_path), base_kwargs={"dtype": torch.bfloat16}, fusion_heads=4)
        assert model.dtype == torch.bfloat16
        assert model.fusion.attention.query.weight.dtype == torch.bfloat16
        assert model.fusion.state_evidence.weight.dtype == torch.float32
