"""Processors of vision-language models on machines without torchvision: pictures work, videos are left out.

Qwen2.5-VL, SmolVLM, InternVL and others come with a video part that cannot be made without torchvision, although an
inspection shows pictures only. Where that part is all that is missing, the processor is made without it.
"""

from __future__ import annotations

from typing import Any

VIDEO = "video_processor"


def load_processor(source: str, config: Any = None, **kwargs: Any) -> Any:
    """Loads a processor, without its video part where torchvision is missing.

    Args:
        source: name or folder of the model.
        config: the model's configuration, which tells the processor's class where its own files do not.
        **kwargs: passed to `from_pretrained` (`local_files_only`, `subfolder`, ...).

    Raises:
        ImportError: another library is missing.
        OSError: files are missing.
    """
    from transformers import AutoProcessor

    try:
        return AutoProcessor.from_pretrained(source, **kwargs)
    except (ImportError, OSError) as error:
        if isinstance(error, OSError) and "video processor" not in str(error):
            raise  # saved whole, but not all there; what `pictures_only` saved lacks the video part by design
        kind = _processor_class(source, config, kwargs)
        if kind is None or VIDEO not in kind.get_attributes():
            raise
        return pictures_only(kind).from_pretrained(source, **kwargs)


def pictures_only(kind: type) -> Any:
    """A processor class without its video part, under the same name, so that what it saves loads everywhere.

    Example:
        >>> pictures_only(Qwen2_5_VLProcessor)(image_processor, tokenizer)  # doctest: +SKIP
    """

    class PicturesOnly(kind):
        @classmethod
        def get_attributes(cls) -> list[str]:
            return [name for name in super().get_attributes() if name != VIDEO]

    PicturesOnly.__name__ = PicturesOnly.__qualname__ = kind.__name__
    return PicturesOnly


def _processor_class(source: str, config: Any, kwargs: dict[str, Any]) -> Any:
    """The processor's class, by the name in its own files or by the model's configuration; None if neither tells."""
    import transformers
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

    try:
        settings, _ = transformers.ProcessorMixin.get_processor_dict(source, **kwargs)
    except OSError:
        settings = {}
    named = getattr(transformers, settings.get("processor_class", ""), None)
    return named or (PROCESSOR_MAPPING.get(type(config), None) if config is not None else None)
