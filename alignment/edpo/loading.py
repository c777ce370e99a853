"""Models by name and ranked answers by file, brought together: what `sage-train edpo` and the sampling writer start from."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sage_ad.alignment.data.exchange import question_in_words
from sage_ad.alignment.data.judge_scores import means_of
from sage_ad.alignment.options import lora_config
from sage_ad.vlm.errors import InputError

if TYPE_CHECKING:
    from datasets import Dataset

    from sage_ad.alignment.data.features import VisualInputCache
    from sage_ad.alignment.data.preference_writers import Sampler
    from sage_ad.alignment.data.prompts import PromptEncoder
    from sage_ad.evaluation.ranked import RankedAnswers

Kind = Literal["sage", "sage with eyes", "pictures", "words"]
TRAINED_BESIDE = ("fusion.adapter", "fusion.image_projection")
"""What alignment trains of SAGE's own parts: the adapter and the projection of its image tokens."""

_VERDICT = re.compile(r"^\s*(true|false|yes|no)\b[\s.,:;!-]*", re.IGNORECASE)


@dataclass(frozen=True)
class Loaded:
    """A model and what makes its inputs.

    Attributes:
        model: on the CPU (the trainer moves it); a SAGE checkpoint comes with its adapter open to training.
        processing_class: tokenizer or processor.
        kind: SAGE with a frozen encoder, SAGE around a model with eyes, another model that reads pictures, or words alone.
        checkpoint: settings of the SAGE checkpoint that it came from (`sage.json`), else None.
    """

    model: Any
    processing_class: Any
    kind: Kind
    checkpoint: Mapping[str, Any] | None = None


def load_for_alignment(name: str) -> Loaded:
    """Loads a model to be trained, in float32.

    Args:
        name: a shipped one ("sage-tiny", "sage-tiny-sft", "smollm2-135m"), the folder of a checkpoint that
            `sage-train sft` wrote, a Hugging Face name, or a folder.

    Raises:
        InputError: there is no such model, or it is served behind a URL.
        BackendError: its weights are damaged.
    """
    import torch

    from sage_ad.vlm.sage.checkpoint import checkpoint_folder, load_checkpoint
    from sage_ad.vlm.weights.embedded import smollm2_folder

    if name.startswith(("http://", "https://")):
        raise InputError(f"{name} is served, so its weights cannot be trained; give a Hugging Face name or a folder.")
    if _is_untuned(name):
        return _stored(str(smollm2_folder()))
    folder = checkpoint_folder(name)
    if folder is None:
        return _stored(name)
    model, processor, settings = load_checkpoint(folder, dtype=torch.float32, merge=False)
    return Loaded(model, processor, "sage with eyes" if processor.has_base else "sage", settings)


def _stored(name: str) -> Loaded:
    from sage_ad.vlm.backends.huggingface import load_pretrained

    found = load_pretrained(name, device="cpu", dtype="float32")
    return Loaded(found.model, found.processor, _kind(found.model, found.processor))


def _kind(model: Any, processor: Any) -> Kind:
    from sage_ad.vlm.sage.modeling_sage import SageForConditionalGeneration

    if isinstance(model, SageForConditionalGeneration):
        return "sage" if model.config.patch_channels is not None else "sage with eyes"
    return "pictures" if hasattr(processor, "image_processor") else "words"


def lora(loaded: Loaded, rank: int) -> Any:
    """LoRA on the language model, and SAGE's adapter trained beside it; the visual encoder is left out by the trainer.

    Returns:
        None where stage 1 left an adapter: it is trained on, and a copy of it is the reference.
    """
    if loaded.checkpoint is not None:
        return None
    beside = list(TRAINED_BESIDE) if loaded.kind == "sage" else ["fusion.image_projection"]
    return lora_config(rank, beside if loaded.kind.startswith("sage") else None)


# ---- rows ------------------------------------------------------------------------------------------------------------


def training_data(
    loaded: Loaded, lines: Sequence[RankedAnswers], folder: Path, cache: VisualInputCache | None = None
) -> tuple[Dataset, PromptEncoder | None]:
    """Ranked answers as the data set of `EDPOTrainer`, and the encoder that goes with it (None: the trainer's choice).

    Args:
        loaded: the model.
        lines: ranked answers, scored or not.
        folder: where relative paths start from.
        cache: frozen features of parts; default: those in the cache of this project.

    Raises:
        InputError: a model that sees is given lines without images.
    """
    from datasets import Dataset, Image
    from datasets import Sequence as Listed

    if loaded.kind != "words" and (blind := [line.id for line in lines if not line.image]):
        raise InputError(
            f"{len(blind)} lines have no image (the first: {blind[0]}), but the model sees; give lines with images, or a "
            "model of words alone."
        )
    dataset = Dataset.from_list([_row(loaded, line, folder) for line in lines])
    if loaded.kind == "pictures":
        return dataset.cast_column("images", Listed(Image())), None
    if loaded.kind == "words":
        return dataset, None
    if cache is None:
        from sage_ad.alignment.data.features import VisualInputCache

        cache = VisualInputCache()
    if loaded.kind == "sage":
        from sage_ad.alignment.data.sage_prompts import VisualInputPrompts

        return dataset, VisualInputPrompts(loaded.model, loaded.processing_class, cache)
    from sage_ad.alignment.data.prompts import SagePrompts
    from sage_ad.alignment.data.sage_prompts import picture_view

    return dataset, SagePrompts(loaded.processing_class, picture_view(loaded.model, cache))


def _row(loaded: Loaded, line: RankedAnswers, folder: Path) -> dict[str, Any]:
    row: dict[str, Any] = {"scores": means_of(line)}
    files = [str((folder / name).resolve()) for name in (line.reference, line.image) if name]
    if loaded.kind.startswith("sage"):
        answers = [with_state(answer, line.question) for answer in line.answers]
        reference = files[0] if line.reference else None
        return row | {
            "prompt": line.question,
            "answers": answers,
            "facts": line.facts,
            "picture_file": files[-1],
            "reference_file": reference,
            "product": line.object,
            # Arrow has no tuples of a word and a number.
            "candidates": [{"name": name, "probability": share} for name, share in line.candidates],
        }
    row |= {"prompt": [{"role": "user", "content": question_in_words(line)}], "answers": line.answers}
    return row | {"images": files} if loaded.kind == "pictures" else row


def with_state(answer: str, question: str) -> str:
    """An answer as SAGE models give it, "anomalous. False. There is ...": state first, then the verdict, then the reason.

    Where the state does not follow from verdict and question the answer stays as it is.
    """
    from sage_ad.evaluation.questions import polarity_of, state_of

    polarity, found = polarity_of(question), _VERDICT.match(answer)
    if polarity is None or found is None:
        return answer
    verdict = found.group(1).lower() in ("true", "yes")
    return f"{state_of(polarity, verdict)}. {verdict}. {answer[found.end() :]}".strip()


def _is_untuned(name: str) -> bool:
    """Whether a name stands for the embedded language model before any training, as it does for `load_backend`."""
    from sage_ad.vlm.backends.base import DEFAULT_BACKEND, UNTUNED
    from sage_ad.vlm.sage.checkpoint import BEST, FOLDER, is_checkpoint

    return name == UNTUNED or (name == DEFAULT_BACKEND and not is_checkpoint(FOLDER / BEST))


def _is_sage(name: str) -> bool:
    """Whether a name stands for a SAGE model (looked up, not loaded)."""
    config = Path(name) / "config.json"
    if config.is_file():
        return '"model_type": "sage"' in config.read_text(encoding="utf-8")
    from sage_ad.vlm.sage.checkpoint import checkpoint_folder

    return not _is_untuned(name) and checkpoint_folder(name) is not None


def load_sampler(name: str, device: str = "auto", temperature: float = 1.0, max_new_tokens: int = 48) -> Sampler:
    """Draws answers from a model by name: a SAGE model sees the part, any other reads facts and question."""
    from sage_ad.alignment.data.preference_writers import backend_sampler
    from sage_ad.vlm.backends.registry import load_backend
    from sage_ad.vlm.devices import pick_device

    if name.startswith(("http://", "https://")):
        return backend_sampler(load_backend(name), temperature, max_new_tokens)
    where = pick_device(device)
    loaded = load_for_alignment(name) if _is_sage(name) else None
    if loaded is None:
        return backend_sampler(load_backend(name, device=device), temperature, max_new_tokens)
    import torch

    model = loaded.model.eval().to(where)
    tokenizer = loaded.processing_class.tokenizer
    from sage_ad.alignment.data.features import VisualInputCache

    cache = VisualInputCache()

    def sample(line: RankedAnswers, count: int, seed: int) -> list[str]:
        dataset, encoder = training_data(loaded, [line], Path("."), cache)
        assert encoder is not None
        inputs: Mapping[str, Any] = {k: v.to(where) for k, v in encoder.encode([dataset[0]]).items()}
        torch.manual_seed(seed)
        written = model.generate(
            **inputs,
            do_sample=True,
            temperature=temperature,
            num_return_sequences=count,
            max_new_tokens=max_new_tokens,
        )
        return tokenizer.batch_decode(written[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)

    return sample
