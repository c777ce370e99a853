"""The sentence encoder that is run without transformers gives what transformers gives."""

from __future__ import annotations

import torch

from sage_ad.vlm.weights.embedded import minilm_folder
from sage_ad.vlm.weights.minilm import minilm

TEXTS = ["A crack in the cell.", "Gr\u00f6\u00dfe: 3 \u00b5m, IPC-A-610 " * 30, "", "scratch"]
OTHERS = ["Yes, there is one.", "no", "It shows nothing at all.", "a stain " * 90]


def test_tokens_and_states_are_those_of_transformers() -> None:
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(minilm_folder())
    model = AutoModel.from_pretrained(minilm_folder(), add_pooling_layer=False).eval()
    for pairs in (None, OTHERS):
        tokens = minilm().tokens(TEXTS, pairs, longest=64)
        expected = tokenizer(TEXTS, pairs, truncation=True, max_length=64)
        assert tokens["input_ids"] == expected["input_ids"]
        assert tokens["token_type_ids"] == expected["token_type_ids"]
        assert list(minilm().words(tokens["input_ids"][0])) == tokenizer.convert_ids_to_tokens(tokens["input_ids"][0])
        for batch, hidden, mask, types in minilm().read(tokens):
            rows = [tokens["input_ids"][index] for index in batch]
            padded = torch.tensor([row + [0] * (mask.shape[1] - len(row)) for row in rows])
            with torch.inference_mode():
                state = model(input_ids=padded, attention_mask=mask, token_type_ids=types).last_hidden_state
            torch.testing.assert_close(hidden[mask.bool()], state[mask.bool()], atol=1e-5, rtol=1e-4)


def test_a_changed_network_leaves_the_first_as_it_was_and_shares_the_rest_of_its_weights() -> None:
    name, other = "encoder.layer.5.output.dense.weight", "encoder.layer.4.output.dense.weight"
    tokens = minilm().tokens(TEXTS, longest=64)
    before = [hidden.clone() for _, hidden, _, _ in minilm().read(tokens)]
    changed = minilm().changed({name: 0.1 * torch.ones_like(minilm().weights[name])})
    for (_, mine, _, _), (_, theirs, _, _), first in zip(
        minilm().read(tokens), changed.read(tokens), before, strict=True
    ):
        assert torch.equal(mine, first)
        assert not torch.allclose(theirs, first)
    assert changed.weights[other].data_ptr() == minilm().weights[other].data_ptr()
