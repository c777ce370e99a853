"""The embedded composition: a language model, patch features of a frozen encoder, facts, and evidence.

The same class wraps vision-language models: see test_wrapping.py.
"""

from __future__ import annotations

import threading

import pytest

torch = pytest.importorskip("torch")

from tiny_sage import CHANNELS, FACTS, GRID, QUESTIONS, batch, features, make  # noqa: E402
from torch.nn import functional as F  # noqa: E402
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor  # noqa: E402

from sage_ad.vlm.sage.modeling_sage import SageForConditionalGeneration  # noqa: E402
from sage_ad.vlm.sage.processing_sage import SageProcessor  # noqa: E402
from sage_ad.vlm.sage.prompts import ASSIST_PROMPT  # noqa: E402


@pytest.fixture(scope="module")
def sage():
    return make()


def what_the_language_model_reads(model, inputs):
    """The embeddings that reach the first layer."""
    seen = []
    handle = model.base.model.layers[0].register_forward_pre_hook(
        lambda _m, args, kwargs: seen.append(args[0] if args else kwargs["hidden_states"]), with_kwargs=True
    )
    with torch.no_grad():
        model(**inputs)
    handle.remove()
    return seen[0]


class TestEquations:
    def test_prompt_is_image_then_facts_then_assist_prompt_then_question(self, sage):
        _, processor = sage
        inputs = batch(processor)
        text = processor.tokenizer.decode(inputs["input_ids"][0])
        image, facts = processor.image_token * 9, processor.fact_token * 2
        assert f"{image}{facts}\n{ASSIST_PROMPT}\n{QUESTIONS[0]}" in text

    def test_equation_9_and_all_before_it_in_plain_loops(self, sage):
        """Eq. 1, 2 and 9 for a sample with references, in double precision, against what the language model reads."""
        model, processor = sage
        model = make()[0].double()
        inputs = batch(processor, rows=(0,))
        read = what_the_language_model_reads(model, {k: _double(v) for k, v in inputs.items()})[0]
        ids = inputs["input_ids"][0]
        test = inputs["patch_features"][0].double().flatten(0, 1)
        reference = inputs["reference_features"].double().flatten(0, 2)
        best = [max(float(t @ r) / float(t.norm() * r.norm()) for r in reference) for t in test]
        distinct = sorted(range(len(best)), key=lambda i: best[i])[: model.config.distinct]
        with torch.no_grad():
            grid = model.fusion.adapter(inputs["patch_features"].double(), None)[0].flatten(0, 1)
            chosen = torch.stack([_normed(grid[i]) for i in distinct])
            t_g = torch.stack([_normed(_mean_embedding(model, processor, fact)) for fact in FACTS[0]])
            t_s = _attend(model.fusion.attention, t_g, chosen)
            facts = model.fusion.fact_projection(t_s)
            pooled = inputs["patch_features"].double()[0].view(3, 2, 3, 2, CHANNELS).mean(dim=(1, 3))[None]
            image = model.fusion.image_projection(model.fusion.adapter(pooled, None)).view(9, -1)
            words = model.get_input_embeddings().weight
        torch.testing.assert_close(read[ids == model.config.image_token_id], image, rtol=1e-6, atol=1e-8)
        torch.testing.assert_close(read[ids == model.config.fact_token_id], facts, rtol=1e-6, atol=1e-8)
        text = (ids != model.config.image_token_id) & (ids != model.config.fact_token_id)
        torch.testing.assert_close(read[text], words[ids[text]])

    def test_matching_as_printed_chooses_other_patches(self, sage):
        nearest, processor = make(matching="nearest")
        paper, _ = make(matching="paper")
        inputs = batch(processor, rows=(0,))
        assert not torch.allclose(nearest(**inputs).logits, paper(**inputs).logits)

    def test_zero_shot_uses_all_test_patches_or_the_rarest(self):
        everything, processor = make(zero_shot="all")
        rarity, _ = make(zero_shot="rarity")
        inputs = batch(processor, rows=(1,))
        assert int(inputs["reference_rows"].sum()) == 0 if "reference_rows" in inputs else True
        assert not torch.allclose(everything(**inputs).logits, rarity(**inputs).logits)
        given = everything(**inputs, distinct=torch.arange(GRID * GRID)[None]).logits
        torch.testing.assert_close(given, everything(**inputs).logits)

    def test_given_distinct_patches_replace_equation_1(self, sage):
        model, processor = sage
        with_reference = batch(processor, rows=(0,))
        test = F.normalize(features(0), dim=-1).view(-1, CHANNELS)
        similarity = (test @ features(10, 2).view(-1, CHANNELS).T).amax(dim=1)
        distinct = similarity.argsort()[:4]
        known = {k: v for k, v in with_reference.items() if not k.startswith("reference")}
        given = model(**known, distinct=torch.cat((distinct, torch.tensor([-1])))[None]).logits
        torch.testing.assert_close(given, model(**with_reference).logits)


class TestWhatChangesTheAnswer:
    @pytest.mark.parametrize("change", ["reference", "facts", "image", "patch_evidence"])
    def test_logits_and_generation_change(self, sage, change):
        model, processor = sage
        before = batch(processor, rows=(0,))
        after = dict(before)
        if change == "reference":
            after["reference_features"] = features(99, 2)
        elif change == "facts":
            after |= batch(processor, rows=(0,), facts=[["normal centre", "no crack in the lower right area"]])
        elif change == "image":
            after["patch_features"] = features(98)
        else:
            after["patch_evidence"] = torch.rand(1, GRID, GRID) * 5
        assert not torch.allclose(model(**before).logits, model(**after).logits, atol=1e-5)
        first, second = (
            model.generate(
                **x, max_new_tokens=6, do_sample=False, output_logits=True, return_dict_in_generate=True
            ).logits
            for x in (before, after)
        )
        assert not torch.allclose(torch.stack(first[:3]), torch.stack(second[:3]), atol=1e-5)

    def test_generation_sees_what_forward_sees(self, sage):
        model, processor = sage
        inputs = batch(processor, evidence=[1.5, None])
        made = model.generate(
            **inputs, max_new_tokens=5, do_sample=False, output_logits=True, return_dict_in_generate=True
        )
        whole = made.sequences
        mask = torch.cat((inputs["attention_mask"], torch.ones(2, 5, dtype=torch.long)), dim=1)
        logits = model(**{**inputs, "input_ids": whole, "attention_mask": mask}).logits
        start = inputs["input_ids"].shape[1] - 1
        for step, seen in enumerate(made.logits):
            torch.testing.assert_close(seen, logits[:, start + step], rtol=1e-4, atol=1e-4)


class TestEvidence:
    def test_an_untrained_model_judges_as_its_evidence(self, sage):
        model, processor = sage
        inputs = batch(processor, evidence=[2.5, -1.0])
        assert model.state_log_odds(**inputs).tolist() == pytest.approx([2.5, -1.0], abs=1e-5)
        said = model.generate(**inputs, max_new_tokens=2, do_sample=False)[:, -2:]
        answers = processor.batch_decode(said)
        assert answers[0].startswith("anomalous")
        assert answers[1].startswith("normal")

    def test_off_and_added_differ_and_off_ignores_it(self):
        off, processor = make(evidence="off")
        added, _ = make(evidence="added")
        inputs = batch(processor, evidence=[2.5, -1.0])
        own = off.state_log_odds(**inputs)
        torch.testing.assert_close(own, off.state_log_odds(**{k: v for k, v in inputs.items() if "evidence" not in k}))
        torch.testing.assert_close(
            added.state_log_odds(**inputs), own + torch.tensor([2.5, -1.0]), rtol=1e-5, atol=1e-5
        )

    def test_only_the_verdict_token_is_moved(self, sage):
        model, processor = sage
        inputs = batch(processor, answers=["anomalous. False.", "normal. True."])
        plain, moved = model(**inputs).logits, model(**inputs, evidence_log_odds=torch.tensor([3.0, 3.0])).logits
        changed = (plain != moved).any(dim=-1)
        starts = (inputs["labels"] != -100).int().argmax(dim=1) - 1
        assert changed.nonzero().tolist() == [[0, int(starts[0])], [1, int(starts[1])]]

    def test_evidence_without_a_place_to_go_raises(self, sage):
        model, processor = make()
        model.config.answer_header = None
        with pytest.raises(ValueError, match="answer_header"):
            model(**batch(processor, evidence=[1.0, 1.0]))

    def test_an_answer_starts_with_a_verdict_token_even_against_its_logits(self):
        model, processor = make()
        with torch.no_grad():
            model.base.lm_head.weight[model.state_ids[0]] = 0
        said = model.generate(**batch(processor), max_new_tokens=3, do_sample=False)[:, -3:]
        assert all(a.startswith(("normal", "anomalous")) for a in processor.batch_decode(said))


class TestTraining:
    def test_loss_is_cross_entropy_on_the_answer(self, sage):
        model, processor = sage
        inputs = batch(processor, answers=["anomalous. False. There is a scratch", "normal."], evidence=[1.0, -2.0])
        output = model(**inputs)
        expected = F.cross_entropy(
            output.logits[:, :-1].flatten(0, 1).float(), inputs["labels"][:, 1:].flatten(), ignore_index=-100
        )
        torch.testing.assert_close(output.loss, expected)

    def test_every_part_of_sage_learns(self):
        model, processor = make(fusion_residual=True)
        model.train()
        model.base.requires_grad_(False)
        inputs = batch(processor, answers=["anomalous.", "normal."], evidence=[1.0, -2.0])
        model(**inputs).loss.backward()
        missing = [n for n, p in model.fusion.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
        assert missing == []
        assert all(p.grad is None for p in model.base.parameters())

    def test_gradient_checkpointing_gives_the_same_gradients(self):
        gradients = []
        for checkpointing in (False, True):
            model, processor = make()
            model.train()
            if checkpointing:
                model.gradient_checkpointing_enable()
                assert model.base.model.gradient_checkpointing
            model(**batch(processor, answers=["anomalous.", "normal."])).loss.backward()
            gradients.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
        assert gradients[0].keys() == gradients[1].keys()
        for name, gradient in gradients[0].items():
            torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-4, atol=1e-6, msg=name)

    def test_lora_through_peft_trains_saves_and_loads_only_our_weights(self, tmp_path):
        peft = pytest.importorskip("peft")
        model, processor = make()
        settings = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], modules_to_save=["fusion"])
        tuned = peft.get_peft_model(model, settings)
        inputs = batch(processor, answers=["anomalous.", "normal."], evidence=[1.0, -2.0])
        optimiser = torch.optim.AdamW([p for p in tuned.parameters() if p.requires_grad], lr=0.05)
        losses = []
        for _ in range(6):
            loss = tuned(**inputs).loss
            loss.backward()
            optimiser.step()
            optimiser.zero_grad()
            losses.append(float(loss.detach()))
        assert losses[-1] < losses[0]
        tuned.eval().save_pretrained(tmp_path)
        from safetensors import safe_open

        with safe_open(tmp_path / "adapter_model.safetensors", "pt") as file:
            names = list(file.keys())
        assert any("state_evidence" in n for n in names)
        assert not any("embed_tokens" in n or "lm_head" in n for n in names)
        again = peft.PeftModel.from_pretrained(make()[0], tmp_path).eval()
        torch.testing.assert_close(again(**inputs).logits, tuned(**inputs).logits)
        prompt = batch(processor, evidence=[1.0, -2.0])
        assert torch.equal(again.generate(**prompt, max_new_tokens=4, do_sample=False),
                           tuned.generate(**prompt, max_new_tokens=4, do_sample=False))  # fmt: skip


class TestBatches:
    def test_batch_equals_single(self, sage):
        model, processor = sage
        odds = [1.2, -0.7]
        together = batch(processor, evidence=odds)
        logits = model(**together).logits
        said = model.generate(**together, max_new_tokens=6, do_sample=False)[:, together["input_ids"].shape[1] :]
        for row in (0, 1):
            alone = batch(processor, rows=(row,), evidence=odds[row : row + 1])
            length = alone["input_ids"].shape[1]
            torch.testing.assert_close(model(**alone).logits[0], logits[row, -length:], rtol=1e-4, atol=1e-5)
            assert torch.equal(model.generate(**alone, max_new_tokens=6, do_sample=False)[0, length:], said[row])

    def test_last_places_are_the_same_and_a_frozen_output_layer_is_not_copied_for_each_row(self):
        """A slice of several rows made `matmul` expand the frozen layer: most of the time and memory of a batch."""
        model, processor = make()
        model.requires_grad_(False)
        inputs = batch(processor)
        vocabulary = model.get_output_embeddings().weight.shape[0]
        with torch.no_grad(), torch.profiler.profile(record_shapes=True) as profile:
            last = model(**inputs, logits_to_keep=2).logits
        assert torch.allclose(last, model(**inputs).logits[:, -2:], atol=1e-5)
        copied = [
            event.input_shapes
            for event in profile.events()
            if event.name == "aten::bmm" and any(vocabulary in shape for shape in event.input_shapes)
        ]
        assert not copied

    def test_beams_and_several_samples_keep_their_pictures(self, sage):
        model, processor = sage
        inputs = batch(processor, evidence=[3.0, -3.0])
        beams = model.generate(**inputs, max_new_tokens=4, num_beams=3, do_sample=False)
        assert beams.shape[0] == 2
        several = model.generate(**inputs, max_new_tokens=1, num_return_sequences=2, do_sample=True, top_k=1)[:, -1]
        assert several.tolist() == [model.state_ids[1]] * 2 + [model.state_ids[0]] * 2

    @pytest.mark.parametrize("lone", [False, True])
    def test_questions_that_share_a_prefix_get_the_same_answers(self, sage, lone):
        model, processor = sage
        questions = [*QUESTIONS, "Is there a hole?", "Can it be used?", "no?"][: 1 if lone else 5]
        n = len(questions)
        one = {
            "patch_features": features(0),
            "reference_features": [features(10, 2)],
            "facts": [FACTS[0]],
            "evidence": [0.4],
        }
        apart = processor(
            text=questions, patch_features=one["patch_features"].expand(n, -1, -1, -1),
            reference_features=one["reference_features"] * n, facts=one["facts"] * n, evidence=one["evidence"] * n,
        )  # fmt: skip
        expected = model.generate(**apart, max_new_tokens=8, do_sample=False)[:, -8:]
        first = processor(text=questions[:1], **one)
        shared = {k: v for k, v in first.items() if k not in ("input_ids", "attention_mask")}
        calls = []
        handle = model.base.model.layers[0].register_forward_pre_hook(
            lambda _m, args, kwargs: calls.append((args[0] if args else kwargs["hidden_states"]).shape),
            with_kwargs=True,
        )
        said = model.generate_shared(
            apart["input_ids"], apart["attention_mask"], **shared, max_new_tokens=8, do_sample=False
        )[:, -8:]
        handle.remove()
        assert torch.equal(said, expected)
        assert calls[0][0] == 1
        assert calls[0][1] > 9  # the picture is read once, before the questions
        assert calls[1][0] == n

    def test_two_threads_do_not_mix_their_facts(self, sage):
        model, processor = sage
        # The same question and as many facts: only the thread tells the two calls apart.
        inputs = [batch(processor, rows=(0,), facts=[facts]) for facts in FACTS]
        assert inputs[0]["input_ids"].shape == inputs[1]["input_ids"].shape
        expected = [model(**x).logits for x in inputs]
        wrong = []

        def ask(row):
            with torch.no_grad():
                for _ in range(25):
                    if not torch.allclose(model(**inputs[row]).logits, expected[row], atol=1e-5):
                        wrong.append(row)

        threads = [threading.Thread(target=ask, args=(row,)) for row in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []


class TestHuggingFace:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_saved_and_loaded_by_the_auto_classes_is_the_same(self, sage, tmp_path, dtype):
        model, processor = sage
        model.save_pretrained(tmp_path / "first")
        # Loaded, not cast: a cast would round the positions' frequencies too.
        model = SageForConditionalGeneration.from_pretrained(tmp_path / "first", dtype=dtype).eval()
        model.save_pretrained(tmp_path)
        processor.save_pretrained(tmp_path)
        again = AutoModelForImageTextToText.from_pretrained(tmp_path, dtype=dtype).eval()
        reader = AutoProcessor.from_pretrained(tmp_path)
        assert isinstance(again, SageForConditionalGeneration)
        assert isinstance(reader, SageProcessor)
        assert _settings(AutoConfig.from_pretrained(tmp_path)) == _settings(model.config)
        inputs, same = batch(processor, evidence=[1.0, 2.0]), batch(reader, evidence=[1.0, 2.0])
        assert all(torch.equal(inputs[k], same[k]) for k in inputs)
        assert torch.equal(again(**same).logits, model(**inputs).logits)
        assert torch.equal(again.generate(**same, max_new_tokens=4, do_sample=False),
                           model.generate(**inputs, max_new_tokens=4, do_sample=False))  # fmt: skip
        assert again.base.lm_head.weight.data_ptr() == again.get_input_embeddings().weight.data_ptr()

    def test_bf16_is_close_to_float32(self, sage):
        model, processor = sage
        inputs = batch(processor, evidence=[1.0, -1.0])
        rounded = make()[0].to(torch.bfloat16)
        assert rounded(**inputs).logits.dtype == torch.bfloat16
        torch.testing.assert_close(rounded(**inputs).logits.float(), model(**inputs).logits, rtol=0.1, atol=0.15)
        assert rounded.state_log_odds(**inputs).tolist() == pytest.approx([1.0, -1.0], abs=0.05)

    @pytest.mark.parametrize(
        "device_map", ["auto", {"base": "cpu", "fusion": "cpu"}, {"fusion": "cpu", "base": "disk"}]
    )
    def test_device_map(self, sage, tmp_path, device_map):
        model, processor = sage
        inputs = batch(processor, evidence=[1.0, 2.0])
        model.save_pretrained(tmp_path / "model")
        placed = SageForConditionalGeneration.from_pretrained(
            tmp_path / "model", device_map=device_map, offload_folder=tmp_path / "offload"
        )
        torch.testing.assert_close(placed(**inputs).logits, model(**inputs).logits)
        assert torch.equal(placed.generate(**inputs, max_new_tokens=3, do_sample=False),
                           model.generate(**inputs, max_new_tokens=3, do_sample=False))  # fmt: skip

    def test_placeholders_are_never_written(self, sage):
        model, processor = sage
        said = model.generate(**batch(processor), max_new_tokens=40, do_sample=True, top_k=0, repetition_penalty=1.2)
        new = said[:, -40:]
        assert not torch.isin(new, torch.tensor([model.config.image_token_id, model.config.fact_token_id])).any()


def _settings(config):
    """What a user sets; the precision is the loader's business."""
    fields = {
        k: v for k, v in config.to_dict().items() if k not in ("base_config", "architectures", "dtype", "_name_or_path")
    }
    return {**fields, "hidden_size": config.hidden_size, "vocab_size": config.vocab_size}


def _double(value):
    return value.double() if value.is_floating_point() else value


def _normed(x):
    mean = sum(x.tolist()) / len(x)
    variance = sum((v - mean) ** 2 for v in x.tolist()) / len(x)
    return torch.tensor([(v - mean) / (variance + 1e-5) ** 0.5 for v in x.tolist()], dtype=torch.float64)


def _mean_embedding(model, processor, fact):
    rows = [
        model.get_input_embeddings().weight[i] for i in processor.tokenizer(fact, add_special_tokens=False)["input_ids"]
    ]
    return sum(rows) / len(rows)


def _attend(attention, facts, patches):
    size = attention.query.weight.shape[0] // attention.heads
    out = []
    for fact in facts:
        q, heads = attention.query.weight @ fact, []
        for h in range(attention.heads):
            part = slice(h * size, (h + 1) * size)
            scores = torch.stack([q[part] @ (attention.key.weight @ p)[part] for p in patches]) / size**0.5
            heads.append(
                sum(w * (attention.value.weight @ p)[part] for w, p in zip(scores.softmax(0), patches, strict=True))
            )
        out.append(attention.output.weight @ torch.cat(heads))
    return torch.stack(out)
