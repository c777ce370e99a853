"""Settings of the SFE agent: typed, with defaults that work, refused when misspelt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from sage_ad.vlm.backends.base import DEFAULT_BACKEND
from sage_ad.vlm.errors import InputError
from sage_ad.vlm.evidence.encoders import DEFAULT_ENCODER
from sage_ad.vlm.evidence.tiles import parse_tile

FactMode = Literal["auto", "hard", "soft", "none"]


def mode_of_facts(chosen: str, backend: Any) -> Literal["hard", "soft", "none"]:
    """How facts reach this model: as chosen, or ("auto") as it was trained, by sentences where it was not."""
    if chosen == "auto":
        trained: Literal["hard", "soft", "none"] | None = getattr(backend, "trained_facts", None)
        return trained or ("soft" if backend.capabilities.soft_facts else "hard")
    return chosen  # type: ignore[return-value]


class AgentSettings(BaseModel):
    """How an inspection is done.

    Attributes:
        model: language model that words the answers (see `sage_ad.vlm.backends.registry.load_backend`).
        device: "auto", "cpu" or "cuda".
        encoder: visual encoder (see `sage_ad.vlm.evidence.encoders.load_encoder`).
        facts: "auto" as the model was trained (soft for SAGE models, hard for others), "hard" puts fact sentences into
            the prompt, "soft" their embeddings through fusion attention (SAGE models only), "none" leaves them out.
        fact_count: facts recalled at most.
        fact_tokens: token budget of the facts that reach the prompt.
        covered_from: facts of the product's own domain from which recall is taken to cover the object.
        write_count: fact sentences that the model writes itself when recall does not cover the object.
        learn: keep facts that the model wrote (as proposed) in the user's knowledge base.
        review: stop after fact writing until an expert has approved or rejected each new fact (graph interrupt).
        judge: judge of the answers, "local" or an OpenAI-compatible URL.
        pass_mean: level that an answer must reach (the lowest of its self-check; the MLE mean where the judge gives
            one); below it the agent goes back to fact extraction.
        max_rounds: how often it may go back.
        max_new_tokens: length limit of one worded explanation.
        tile: "auto", "off" or a side in pixels: how large pictures are cut (`sage_ad.vlm.evidence.tiles`).
        keep_references: keep references made ready under `$SAGE_HOME`, by their content, for later processes.
        mm_per_pixel: scale of the pictures, for sizes in millimetres; None leaves them in pixels.
        seed: seed of everything random.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = DEFAULT_BACKEND
    device: str = "auto"
    encoder: str = DEFAULT_ENCODER
    facts: FactMode = "auto"
    fact_count: int = Field(default=6, ge=0, le=64)
    fact_tokens: int = Field(default=220, ge=0)
    covered_from: int = Field(default=3, ge=0)
    write_count: int = Field(default=4, ge=1, le=32)
    learn: bool = False
    review: bool = False
    judge: str = "local"
    pass_mean: float = Field(default=3.0, ge=1, le=5)
    max_rounds: int = Field(default=1, ge=0, le=5)
    max_new_tokens: int = Field(default=48, ge=8, le=1024)
    tile: Annotated[int | str, AfterValidator(parse_tile)] = "auto"
    keep_references: bool = True
    mm_per_pixel: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    seed: int = 0

    def updated(self, changes: Mapping[str, Any]) -> AgentSettings:
        """A checked copy with some settings changed; raises `InputError` naming the first setting that is wrong."""
        return make_settings({**self.model_dump(), **changes})


def make_settings(values: Mapping[str, Any]) -> AgentSettings:
    """Checks settings given by name; raises `InputError` in one sentence for an unknown name or a wrong value."""
    try:
        return AgentSettings(**values)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            known = ", ".join(AgentSettings.model_fields)
            raise InputError(f"There is no setting named {name!r}; the settings are: {known}.") from None
        raise InputError(f"The setting {name!r} cannot be {first['input']!r}: {first['msg']}.") from None
