"""Which back end a model's name stands for; an implementation is imported only when it is used."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sage_ad.vlm.backends.base import DEFAULT_BACKEND, UNTUNED, LanguageBackend


def load_backend(
    name: str = DEFAULT_BACKEND, *, device: str = "auto", progress: Callable[[str], None] | None = None
) -> LanguageBackend:
    """Makes the back end that `name` stands for.

    Args:
        name: "sage-tiny" (the best shipped checkpoint), "sage-tiny-sft", "sage-tiny-edpo", the folder of a checkpoint that
            `sage-train` wrote, "smollm2-135m" (the embedded language model before training), a Hugging Face name or
            folder (with "#bfloat16", "#float16", "#float32", "#8bit" or "#4bit" behind it for another precision than
            the checkpoint's own), or the URL of an OpenAI-compatible server with the model's name behind "#"
            ("http://host:8000/v1#model"; without it the server's only model is taken).
        device: "auto", "cpu" or "cuda" (or "cuda:1"); of no meaning for a served model.
        progress: is given a line of text for what takes time once (unpacking the embedded model); None keeps silent.

    Raises:
        InputError: no such model or device, with what can be given.
        BackendError: the weights cannot be unpacked or loaded.
    """
    if name.startswith(("http://", "https://")):
        from sage_ad.vlm.backends.served import ServedBackend

        return ServedBackend.from_url(name)
    from sage_ad.vlm.sage.checkpoint import checkpoint_folder

    if name == UNTUNED:
        from sage_ad.vlm.backends.smollm import load_smollm2

        return load_smollm2(device=device, progress=progress)
    folder = checkpoint_folder(name)
    if folder is not None:
        from sage_ad.vlm.backends.sage_backend import load_sage

        return load_sage(folder, name=folder.name, device=device, progress=progress)
    from sage_ad.vlm.backends.huggingface import HuggingFaceBackend, load_pretrained
    from sage_ad.vlm.backends.wrapped_backend import WrappedSageBackend

    source, _, precision = (name, "", "") if Path(name).exists() else name.partition("#")
    loaded = load_pretrained(source, device=device, dtype=precision or "auto")
    kind = WrappedSageBackend if loaded.model.config.model_type == "sage" else HuggingFaceBackend
    return kind(loaded.model, loaded.processor, name=loaded.name)
