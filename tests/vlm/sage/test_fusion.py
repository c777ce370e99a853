"""Eq. 2 and the evidence's way into the verdict, each against plain loops in double precision."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")

from sage_ad.vlm.sage.fusion import FusionAttention, LNProjection, mean_of_tokens, pad_rows, rare_patches  # noqa: E402
from sage_ad.vlm.sage.shared_prefix import shared_length  # noqa: E402
from sage_ad.vlm.sage.verdict_token import StateEvidence, VerdictTokenFirst, answer_starts  # noqa: E402


def times(matrix, vector):
    """matrix @ vector, number by number."""
    return [sum(float(matrix[i][j]) * float(vector[j]) for j in range(len(vector))) for i in range(len(matrix))]


def equation_2(facts, keys, values, attention):
    """t^s of one sample, written as loops: every head, every fact, every patch."""
    width, heads = attention.query.weight.shape[0], attention.heads
    size = width // heads
    result = []
    for fact in facts:
        q = times(attention.query.weight, fact)
        joined = []
        for head in range(heads):
            part = slice(head * size, (head + 1) * size)
            scores = [
                sum(a * b for a, b in zip(q[part], times(attention.key.weight, k)[part], strict=True)) / math.sqrt(size)
                for k in keys
            ]
            top = max(scores)
            weights = [math.exp(s - top) for s in scores]
            seen = [times(attention.value.weight, v)[part] for v in values]
            joined += [sum(w * v[c] for w, v in zip(weights, seen, strict=True)) / sum(weights) for c in range(size)]
        result.append(times(attention.output.weight, joined))
    return torch.tensor(result, dtype=torch.float64)


class TestFusionAttention:
    def test_equals_equation_2_in_plain_loops(self):
        torch.manual_seed(0)
        attention = FusionAttention(fact_channels=6, patch_channels=8, heads=2).double()
        facts, patches = torch.randn(2, 3, 6).double(), torch.randn(2, 5, 8).double()
        with torch.no_grad():
            fused = attention(facts, patches, patches)
            for sample in range(2):
                expected = equation_2(facts[sample], patches[sample], patches[sample], attention)
                torch.testing.assert_close(fused[sample], expected, rtol=1e-10, atol=1e-12)

    def test_keys_and_values_are_told_apart(self):
        torch.manual_seed(1)
        attention = FusionAttention(6, 8, heads=4).double()
        facts, keys, values = (
            torch.randn(1, 2, 6).double(),
            torch.randn(1, 4, 8).double(),
            torch.randn(1, 4, 8).double(),
        )
        with torch.no_grad():
            torch.testing.assert_close(
                attention(facts, keys, values)[0], equation_2(facts[0], keys[0], values[0], attention)
            )

    def test_patches_that_only_fill_up_the_batch_are_not_seen(self):
        torch.manual_seed(2)
        attention = FusionAttention(6, 8, heads=2).double()
        facts, few, many = torch.randn(2, 3, 6).double(), torch.randn(2, 8).double(), torch.randn(7, 8).double()
        patches, mask = pad_rows([few, many])
        patches[0, 2:] = 1e3
        with torch.no_grad():
            fused = attention(facts, patches, patches, mask)
            torch.testing.assert_close(fused[0], equation_2(facts[0], few, few, attention))
            torch.testing.assert_close(fused[1], equation_2(facts[1], many, many, attention))

    def test_residual_lets_the_fact_itself_through(self):
        torch.manual_seed(3)
        plain, residual = FusionAttention(6, 8, 2), FusionAttention(6, 8, 2, residual=True)
        residual.load_state_dict(plain.state_dict(), strict=False)
        facts, patches = torch.randn(1, 2, 6), torch.randn(1, 3, 8)
        difference = residual(facts, patches, patches) - plain(facts, patches, patches)
        torch.testing.assert_close(difference, residual.residual(facts))

    def test_heads_that_do_not_divide_the_width_raise(self):
        with pytest.raises(ValueError, match="3 heads"):
            FusionAttention(6, 8, heads=3)


class TestLNProjection:
    def test_equals_plain_loops(self):
        torch.manual_seed(0)
        project = LNProjection(5, 4).double()
        torch.nn.init.normal_(project.norm.weight)
        x = torch.randn(5).double()
        mean = sum(float(v) for v in x) / 5
        spread = math.sqrt(sum((float(v) - mean) ** 2 for v in x) / 5 + project.norm.eps)
        normed = [
            (float(v) - mean) / spread * w + b
            for v, w, b in zip(x, project.norm.weight.tolist(), project.norm.bias.tolist(), strict=True)
        ]
        mapped = times(project.linear.weight.tolist(), normed)
        expected = [a + b for a, b in zip(mapped, project.linear.bias.tolist(), strict=True)]
        torch.testing.assert_close(project(x), torch.tensor(expected, dtype=torch.float64))

    def test_residual_starts_as_the_pretrained_tokens_themselves(self):
        project = LNProjection(6, 6, residual=True)
        torch.nn.init.zeros_(project.linear.weight)
        torch.nn.init.zeros_(project.linear.bias)
        x = torch.randn(3, 6)
        assert torch.equal(project(x), x)

    def test_residual_of_another_width_raises(self):
        with pytest.raises(ValueError, match="keeps its width"):
            LNProjection(6, 5, residual=True)


class TestPieces:
    def test_rare_patches_finds_the_odd_one_out(self):
        torch.manual_seed(0)
        texture = torch.nn.functional.normalize(torch.ones(40, 16) + 0.1 * torch.randn(40, 16), dim=1)
        texture[17] = -texture[17]
        assert rare_patches(texture, 3)[0] == 17
        assert len(rare_patches(texture, 100)) == 40
        assert rare_patches(texture[:1], 4).tolist() == [0]

    def test_mean_of_tokens_leaves_padding_out(self):
        tokens = torch.tensor([[[[1.0, 2], [3, 4], [9, 9]], [[9, 9], [9, 9], [9, 9]]]])
        mask = torch.tensor([[[1, 1, 0], [0, 0, 0]]])
        assert mean_of_tokens(tokens, mask).tolist() == [[[2.0, 3.0], [0.0, 0.0]]]

    def test_shared_length_keeps_something_of_every_prompt(self):
        same = [torch.tensor([1, 2, 3, 4]), torch.tensor([1, 2, 3, 4])]
        assert shared_length(same, spare=2) == 2
        assert shared_length([torch.tensor([1, 2, 9, 9, 9]), torch.tensor([1, 2, 3, 4, 5])]) == 2
        assert shared_length([torch.tensor([7, 1]), torch.tensor([8, 1])]) == 0


class TestStateEvidence:
    logits = torch.tensor([[[0.5, -1.0, 3.0, 0.2]], [[0.1, 0.4, -2.0, 1.0]]], dtype=torch.float64)

    @pytest.mark.parametrize("gated", [True, False])
    def test_equals_plain_arithmetic(self, gated):
        state = StateEvidence(gated=gated)
        with torch.no_grad():
            state.weight.fill_(0.7)
            state.bias.fill_(-0.3)
            state.gain.fill_(0.25 if gated else 1.0)
            moved = state(self.logits, torch.tensor([2.0, -1.5]), torch.ones(2, 1, dtype=torch.bool), (1, 3))
        evidence = (2.0, -1.5)
        for row in range(2):
            normal, anomalous = float(self.logits[row, 0, 1]), float(self.logits[row, 0, 3])
            delta = 0.7 * evidence[row] - 0.3 + state.gain.item() * (anomalous - normal)
            middle = (normal + anomalous) / 2
            assert moved[row, 0, 3] == pytest.approx(middle + delta / 2, abs=1e-6)
            assert moved[row, 0, 1] == pytest.approx(middle - delta / 2, abs=1e-6)
            assert moved[row, 0, [0, 2]].tolist() == self.logits[row, 0, [0, 2]].tolist()

    def test_untrained_gate_gives_the_eyes_own_probability(self):
        moved = StateEvidence(gated=True)(
            self.logits, torch.tensor([1.3, -0.4]), torch.ones(2, 1, dtype=torch.bool), (1, 3)
        )
        assert (moved[:, 0, 3] - moved[:, 0, 1]).tolist() == pytest.approx([1.3, -0.4], abs=1e-6)

    def test_no_measurement_leaves_the_logits(self):
        nothing = torch.tensor([float("nan"), 1.0])
        moved = StateEvidence(gated=True)(self.logits, nothing, torch.ones(2, 1, dtype=torch.bool), (1, 3))
        torch.testing.assert_close(moved[0], self.logits[0], rtol=1e-6, atol=1e-6)
        assert not torch.equal(moved[1], self.logits[1])

    def test_nan_gives_no_nan_gradient(self):
        state = StateEvidence(gated=True)
        logits = self.logits.clone().requires_grad_()
        state(
            logits, torch.tensor([float("nan"), 2.0]), torch.ones(2, 1, dtype=torch.bool), (1, 3)
        ).square().sum().backward()
        assert torch.isfinite(logits.grad).all()
        assert torch.isfinite(state.weight.grad)
        assert state.gain.grad != 0

    def test_answers_start_after_every_header(self):
        ids = torch.tensor([[5, 6, 1, 5, 6, 2], [0, 0, 0, 5, 6, 3]])
        assert answer_starts(ids, [5, 6]).nonzero().tolist() == [[0, 1], [0, 4], [1, 4]]
        assert not answer_starts(ids[:, -1:], [5, 6]).any()

    def test_an_answer_begins_with_a_whole_verdict_token(self):
        first = VerdictTokenFirst([[7], [8, 9]], prompt_length=2)
        scores = torch.zeros(1, 12)

        def allowed(said):
            passed = first(torch.tensor([[1, 2, *said]]), scores)[0]
            return torch.isfinite(passed).nonzero().flatten().tolist()

        assert allowed([]) == [7, 8]
        assert allowed([8]) == [9]
        assert len(allowed([7])) == len(allowed([8, 9])) == 12
