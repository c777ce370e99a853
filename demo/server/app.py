"""The service's endpoints: the engine of the demo behind plain HTTP, with answers of one sentence where something is wrong."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import json
import os
import re
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from pathlib import Path
from typing import Annotated, Any, get_origin

from anyio import CapacityLimiter, to_thread
from fastapi import Depends, FastAPI, File, Form, HTTPException, Request, Security, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from fastapi.security import APIKeyHeader
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException as StarletteHTTPException

from sage_ad.demo.server.front import WHO, Front
from sage_ad.demo.server.settings import ServerSettings
from sage_ad.demo.services import safety
from sage_ad.demo.services.engine import Engine, checked_settings, report_failure
from sage_ad.demo.services.fair_queue import Event, Job, QueueFull
from sage_ad.evaluation.inspection import InspectionRequest, InspectionTrace
from sage_ad.vlm.commandline import stop_on_terminate
from sage_ad.vlm.errors import BackendError, InputError, SageError
from sage_ad.vlm.files import safe_name, write_whole

SECONDS_AT_FIRST = 5.0
"""What an inspection is taken to last before one was measured."""

LONGEST_RETRY = 300

GRACE_SECONDS = 60
"""How long requests under way may take when the service is told to stop."""

ROOM, MINUTES_WITHOUT_ROOM = 0.1, 10
"""Where less than this share of the disk is free, uploads are kept for so many minutes only."""

GONE = 499

EVENT_STREAM, JSON_LINES = "text/event-stream", "application/x-ndjson"

DESCRIPTION = """
Send a picture of a part, get a verdict with the measured evidence behind it. The service compares the part with pictures of
good parts: those that you send along, or those that its product was taught with (`sage-kb add-looks`).

Every answer that is no result is `{"detail": "one sentence"}` with the fitting status. When the line is faster than the
service, it says 429 or 503 and in `Retry-After` how many seconds to wait.
"""

Picture = Annotated[UploadFile, File(description="Picture of the part (PNG, JPEG, TIFF, BMP, WebP, ...).")]
Pictures = Annotated[list[UploadFile], File(description="Pictures of the parts; repeat the field.")]
References = Annotated[
    list[UploadFile],
    File(
        description="Pictures of good parts, taken like the part; repeat the field. None: what the product was taught."
    ),
]
Product = Annotated[str, Form(description='Name of the product ("solar cell"); see `/products`. Never guessed.')]
Domain = Annotated[str, Form(description="Knowledge pack to use; empty: found by the product.")]
Questions = Annotated[
    list[str],
    Form(
        description="Question to answer beside the explanation; repeat the field. Without one no language model works."
    ),
]
Scale = Annotated[
    float | None,
    Form(gt=0, allow_inf_nan=False, description="Millimetres per pixel: sizes are then in millimetres, too."),
]


class Taught(BaseModel):
    """A product that was taught by pictures."""

    product: str = Field(description="Name to send as `product`.")
    domain: str = Field(description="Its knowledge pack.")
    good: int = Field(description="Pictures of good parts; with one or more you need not send references.")
    defects: dict[str, int] = Field(description="Defects that were shown, with their number of pictures.")


class Pack(BaseModel):
    """A knowledge pack."""

    domain: str = Field(description="Name to send as `domain`.")
    title: str
    products: list[str] = Field(description="Products that its facts are about.")


class Products(BaseModel):
    """What the service knows."""

    taught: list[Taught]
    packs: list[Pack]


class Health(BaseModel):
    """Whether the service works."""

    status: str = Field(description='"ok"')
    model: str = Field(description="Model that answers questions.")
    waiting: int = Field(description="Inspections that wait.")
    running: int = Field(description="Inspections under way.")


REFUSED: dict[int | str, dict[str, Any]] = {
    401: {"description": "No key, or a wrong one."},
    413: {"description": "The request, or a picture, is too large."},
    422: {"description": "A field or a picture cannot be used; the sentence says which and why."},
    429: {"description": "You have too much waiting; try again after `Retry-After` seconds."},
    503: {
        "description": "All have too much waiting, or the model's server is gone; try again after `Retry-After` seconds."
    },
}


class Service:
    """What the endpoints share.

    Args:
        engine: models, knowledge and queue, loaded.
        settings: limits and keys.
    """

    def __init__(self, engine: Engine, settings: ServerSettings) -> None:
        self.engine, self.settings = engine, settings
        self.uploads = Path(tempfile.mkdtemp(prefix="sage-serve-"))
        self.registry = CollectorRegistry()
        self.inspections = Counter(
            "sage_inspections", "Inspections by outcome: normal, anomalous, error, stopped.", ["outcome"],
            registry=self.registry,
        )  # fmt: skip
        self.seconds = Histogram(
            "sage_inspection_seconds", "Seconds of an inspection, without waiting.", registry=self.registry,
            buckets=(0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60),
        )  # fmt: skip
        self.refused = Counter("sage_refused", "Requests refused because too much waits.", registry=self.registry)
        for name, about in (("waiting", "Inspections that wait."), ("running", "Inspections under way.")):
            gauge = Gauge(f"sage_{name}", about, registry=self.registry)
            gauge.set_function(lambda name=name: getattr(engine.queue, name))  # type: ignore[misc]
        self._lasted = SECONDS_AT_FIRST
        # Each inspection that waits holds a thread, and so must not those that answer /health.
        self._threads = CapacityLimiter(settings.waiting + settings.parallel + 8)

    async def request(
        self, image: UploadFile, references: Sequence[UploadFile], product: str, domain: str, questions: Sequence[str],
        scale: float | None, facts: bool = True,
    ) -> InspectionRequest:  # fmt: skip
        """What a client sent, kept and checked.

        Raises:
            HTTPException: something is too large or too many.
            SageError: something cannot be used.
        """
        if len(references) > self.settings.max_references:
            raise HTTPException(
                413, f"{len(references)} references are too many; send at most {self.settings.max_references}."
            )
        return InspectionRequest(
            image=await self.kept(image),
            references=[await self.kept(one) for one in references],
            questions=safety.questions_of("\n".join(questions)),
            domain=domain or None,
            product=safety.check_text(product, "The product's name", 120) or None,
            settings=checked_settings(facts, scale=scale),
        )

    async def kept(self, upload: UploadFile) -> Path:
        """The file of an upload, checked; the same content under the same name is the same file, so that it is encoded once."""
        limit = self.settings.max_megabytes
        if (upload.size or 0) > limit * 2**20:
            raise HTTPException(413, f"{upload.filename} is larger than {limit} MB; scale it down or save it as JPEG.")
        content = await upload.read()

        def keep() -> Path:
            folder = self.uploads / hashlib.sha256(content).hexdigest()[:32]
            path = folder / safe_name(upload.filename or "", "picture")
            if not path.is_file():
                write_whole(path, content)
            os.utime(folder)
            return safety.check_picture(
                path, self.uploads, max_bytes=limit * 2**20, max_pixels=self.settings.max_pixels
            )

        return await to_thread.run_sync(keep, limiter=self._threads)

    def submit(self, request: Request, asked: InspectionRequest) -> Job:
        """Puts an inspection into the queue.

        Raises:
            QueueFull: too much waits.
        """
        return self.engine.submit(getattr(request.state, WHO), asked, pictures=False)

    async def events(self, job: Job) -> AsyncGenerator[Event, None]:
        """Events of a job as they happen; whoever stops listening stops the job."""
        steps = iter(job)
        outcome = "stopped"
        try:
            while (
                event := await to_thread.run_sync(next, steps, None, abandon_on_cancel=True, limiter=self._threads)
            ) is not None:
                if event["event"] == "trace":
                    trace: InspectionTrace = event["trace"]
                    outcome = trace.verdict
                    self.seconds.observe(trace.seconds)
                    self._lasted += 0.2 * (trace.seconds - self._lasted)
                yield event
        except SageError:
            outcome = "error"
            raise
        finally:
            job.stop()
            self.inspections.labels(outcome).inc()

    async def trace(self, request: Request, job: Job) -> InspectionTrace | None:
        """The trace of a job; None if the client went away."""

        async def watch() -> None:
            while not await request.is_disconnected():
                await asyncio.sleep(0.5)
            job.stop()

        watcher = asyncio.create_task(watch())
        try:
            async with contextlib.aclosing(self.events(job)) as events:
                async for event in events:
                    if event["event"] == "trace":
                        return event["trace"]
            return None
        finally:
            watcher.cancel()

    def retry_after(self) -> int:
        """Seconds after which a request is likely to be taken."""
        queue = self.engine.queue
        return round(min(LONGEST_RETRY, max(1.0, self._lasted * queue.waiting / queue.places / 2)))

    async def sweep(self) -> None:
        """Deletes uploads that nobody has sent for a while, for ever."""
        while True:
            await asyncio.sleep(60)
            with contextlib.suppress(OSError):  # a disk that is away for a moment
                disk = shutil.disk_usage(self.uploads)
                minutes = self.settings.keep_minutes if disk.free > ROOM * disk.total else MINUTES_WITHOUT_ROOM
                for folder in self.uploads.iterdir():
                    if time.time() - folder.stat().st_mtime > 60 * minutes:
                        shutil.rmtree(folder, ignore_errors=True)


async def known_fields(request: Request) -> None:
    """Refuses fields that nobody reads and a second value where one is meant: the verdict would be given without them."""
    declared = {field.name: field for field in request.scope["route"].dependant.body_params}
    sent = [name for name, _ in (await request.form()).multi_items()]
    for name in [*request.query_params, *sent]:
        if name not in declared:
            raise InputError(f"There is no field {name[:80]!r}; the fields are: {', '.join(declared)}.")
        if name in request.query_params:
            raise InputError(f"The field {name!r} stands in the address; send it in the form, beside the pictures.")
        if sent.count(name) > 1 and get_origin(declared[name].field_info.annotation) is not list:
            raise InputError(
                f"The field {name!r} was sent {sent.count(name)} times and takes one value (/batch: several images)."
            )


def said(event: Event) -> dict[str, Any]:
    """An event as it is streamed; what was measured comes before the whole trace."""
    if event["event"] in ("trace", "seen"):
        name = "trace" if event["event"] == "trace" else "measured"
        return {"event": name, "trace": safety.plain_trace(event["trace"])}
    return event


def failure(error: Exception, service: Service) -> tuple[int, str, dict[str, str]]:
    """Status, sentence and headers of what went wrong."""
    if isinstance(error, OSError):
        report_failure(error)
        return (
            503,
            f"The picture cannot be kept ({error.strerror}); the operator must make room.",
            {"Retry-After": "60"},
        )
    if isinstance(error, QueueFull):
        service.refused.inc()
        return 429 if error.own else 503, str(error), {"Retry-After": str(service.retry_after())}
    if isinstance(error, BackendError):
        return 503, str(error), {"Retry-After": "30"}
    return 422, str(error), {}


def build_server(engine: Engine, settings: ServerSettings) -> FastAPI:
    """The application; the engine is loaded by the caller."""
    service = Service(engine, settings)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        sweeper = asyncio.create_task(service.sweep())
        yield
        sweeper.cancel()
        shutil.rmtree(service.uploads, ignore_errors=True)

    key = Security(APIKeyHeader(name="X-API-Key", auto_error=False, description="Your key, where keys are asked for."))
    app = FastAPI(
        title="SAGE: inspection of parts", description=DESCRIPTION, version="1", lifespan=lifespan,
        docs_url=None, redoc_url=None, dependencies=[key],
    )  # fmt: skip
    app.state.service = service
    app.add_middleware(
        Front, keys=settings.keys, max_bytes=settings.max_request_megabytes * 2**20, registry=service.registry
    )

    @app.exception_handler(OSError)
    @app.exception_handler(SageError)
    async def refused(request: Request, error: Exception) -> Response:
        status, sentence, headers = failure(error, service)
        return JSONResponse({"detail": sentence}, status, headers)

    @app.exception_handler(RequestValidationError)
    async def misused(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"][1:]) or "the body"
        what = "is missing" if first["type"] == "missing" else f"cannot be used ({first['msg']})"
        if "UploadFile" in first["msg"]:
            what = "must be a file (curl: -F field=@part.png)"
        return JSONResponse({"detail": f"The field {field!r} {what}; the page / lists the fields."}, 422)

    @app.exception_handler(StarletteHTTPException)
    async def not_served(request: Request, error: StarletteHTTPException) -> Response:
        detail = error.detail
        if error.status_code in (404, 405):
            detail = f"There is no {request.method} {request.url.path}; the page / lists what there is."
        return JSONResponse({"detail": detail}, error.status_code, error.headers)

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> Response:
        return JSONResponse({"detail": "Something failed that should not; the operator finds it in the log."}, 500)

    @app.post(
        "/inspect",
        response_model=InspectionTrace,
        dependencies=[Depends(known_fields)],
        responses={
            200: {"description": "The trace; with `Accept: text/event-stream` or `application/x-ndjson` the steps as they "
                  "happen: `waiting`, `step`, `measured` (verdict and regions, before the words), `token`, `explanation`, "
                  "at last `trace`, or `error`.", "content": {EVENT_STREAM: {}, JSON_LINES: {}}},
            **REFUSED,
        },
        summary="Inspect one part",
    )  # fmt: skip
    async def inspect(
        request: Request, image: Picture, references: References = [], product: Product = "", domain: Domain = "",  # noqa: B006
        questions: Questions = [], mm_per_pixel: Scale = None,  # noqa: B006
        facts: Annotated[bool, Form(description="Whether facts of the knowledge base are used.")] = True,
    ) -> Any:  # fmt: skip
        """Inspects a part. Of the trace a line needs `verdict` ("normal" or "anomalous"), `anomaly_score` with its `threshold`,
        `confidence` (0.5 is a coin), `defect` (null where no name is sure), `regions` (`box` is x0, y0, x1, y1 in pixels),
        `explanation` for people, and `warnings` about pictures that do not fit."""
        asked = await service.request(image, references, product, domain, questions, mm_per_pixel, facts)
        job = service.submit(request, asked)
        accept = request.headers.get("accept", "")
        for kind in (EVENT_STREAM, JSON_LINES):
            if kind in accept:
                return StreamingResponse(streamed(service, job, kind), media_type=kind)
        trace = await service.trace(request, job)
        return Response(status_code=GONE) if trace is None else JSONResponse(safety.plain_trace(trace))

    @app.post(
        "/batch",
        response_class=StreamingResponse,
        dependencies=[Depends(known_fields)],
        responses={
            200: {"description": "JSON lines, one a part as it is done: `image` with `trace` or `error`; at last `summary`.",
                  "content": {JSON_LINES: {}}},
            **REFUSED,
        },
        summary="Inspect several parts",
    )  # fmt: skip
    async def batch(
        request: Request, images: Pictures, references: References = [], product: Product = "", domain: Domain = "",  # noqa: B006
        questions: Questions = [], mm_per_pixel: Scale = None,  # noqa: B006
    ) -> Any:  # fmt: skip
        """Inspects parts one after the other; a picture that cannot be read stops nothing. Other clients get their turns
        between them. For whole folders use `sage-batch`, which also compares parts without references with one another."""
        if len(images) > settings.max_parts:
            raise HTTPException(
                413, f"{len(images)} parts are too many for one request; send at most {settings.max_parts}."
            )
        # References that cannot be used are refused before anything is answered.
        for one in references:
            await service.kept(one)
            await one.seek(0)
        lines = batched(service, request, images, references, (product, domain, questions, mm_per_pixel))
        return StreamingResponse(lines, media_type=JSON_LINES)

    @app.get("/products", summary="What the service knows", responses={401: REFUSED[401]})
    def products() -> Products:
        """Products that were taught by pictures (these need no references), and the knowledge packs with their products."""
        return known_products(engine)

    @app.get("/health", summary="Whether it works")
    def health() -> Health:
        """For a load balancer or container: 200 as soon as the models are loaded. Needs no key."""
        queue = engine.queue
        return Health(status="ok", model=settings.model, waiting=queue.waiting, running=queue.running)

    @app.get(
        "/metrics", summary="Counters for Prometheus", response_class=PlainTextResponse, responses={401: REFUSED[401]}
    )
    def metrics() -> Response:
        """Requests, inspections by verdict, seconds, how many wait and how many were refused."""
        return Response(generate_latest(service.registry), media_type=CONTENT_TYPE_LATEST)

    @app.get("/", include_in_schema=False)
    def page() -> HTMLResponse:
        return HTMLResponse(explained())

    @functools.cache
    def explained() -> str:
        return help_page(app.openapi(), settings)

    return app


async def streamed(service: Service, job: Job, kind: str) -> AsyncIterator[str]:
    """Events of an inspection as server-sent events or JSON lines."""

    def line(event: dict[str, Any]) -> str:
        text = json.dumps(event, ensure_ascii=False)
        return f"event: {event['event']}\ndata: {text}\n\n" if kind == EVENT_STREAM else text + "\n"

    try:
        async with contextlib.aclosing(service.events(job)) as events:
            async for event in events:
                yield line(said(event))
    except SageError as error:
        status, sentence, _ = failure(error, service)
        yield line({"event": "error", "status": status, "detail": sentence})


async def batched(
    service: Service, request: Request, images: Sequence[UploadFile], references: Sequence[UploadFile], about: Any
) -> AsyncIterator[str]:
    """Lines of a batch: each part when it is done, then how many they were."""
    counts = {"parts": len(images), "normal": 0, "anomalous": 0, "errors": 0}
    for image in images:
        found: dict[str, Any] = {"image": image.filename}
        try:
            for one in references:
                await one.seek(0)
            asked = await service.request(image, references, *about)
            job = await patient(service, request, asked)
            async with contextlib.aclosing(service.events(job)) as events:
                async for event in events:
                    if event["event"] == "trace":
                        found["trace"] = safety.plain_trace(event["trace"])
            counts[found["trace"]["verdict"]] += 1
        except (SageError, OSError, HTTPException) as error:
            found["error"] = error.detail if isinstance(error, HTTPException) else failure(error, service)[1]
            counts["errors"] += 1
        yield json.dumps(found, ensure_ascii=False) + "\n"
    yield json.dumps({"summary": counts}) + "\n"


async def patient(service: Service, request: Request, asked: InspectionRequest) -> Job:
    """A place in the queue for a part of a batch, which was taken as a whole and waits while the queue is full."""
    while True:
        with contextlib.suppress(QueueFull):
            return service.submit(request, asked)
        await asyncio.sleep(1)


def known_products(engine: Engine) -> Products:
    """What was taught, and which packs there are."""
    from sage_ad.knowledge.looks.pictures import looks_folder, read_looks

    taught: dict[tuple[str, str], Taught] = {}
    packs = []
    for info in engine.store.domains():
        packs.append(Pack(domain=info.name, title=info.title, products=[term.name for term in info.products]))
        for look in read_looks(looks_folder(info.name)):
            one = taught.setdefault(
                (info.name, look.product.casefold()), Taught(product=look.product, domain=info.name, good=0, defects={})
            )
            if look.defect is None:
                one.good += 1
            else:
                one.defects[look.defect] = one.defects.get(look.defect, 0) + 1
    return Products(taught=list(taught.values()), packs=packs)


def help_page(schema: dict[str, Any], settings: ServerSettings) -> str:
    """The OpenAPI document as a page that needs neither script nor network."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup, escape

    def fields(operation: dict[str, Any]) -> list[tuple[str, dict[str, Any], bool]]:
        content = operation.get("requestBody", {}).get("content", {})
        found = []
        for body in content.values():
            model = schema["components"]["schemas"][body["schema"]["$ref"].rsplit("/", 1)[1]]
            found = [(name, about, name in model.get("required", ())) for name, about in model["properties"].items()]
        return found

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["marked"] = lambda text: Markup(re.sub(r"`(.+?)`", r"<code>\1</code>", str(escape(text))))
    return environment.get_template("help.html.j2").render(schema=schema, fields=fields, settings=settings)


def run_server(settings: ServerSettings) -> None:
    """Loads the models and serves until SIGTERM or Ctrl-C; what is under way then is answered.

    Raises:
        InputError: the address cannot be used, or a model cannot be loaded.
    """
    import uvicorn

    from sage_ad.demo.cli import share_heaps

    place = bound(settings.host, settings.port)
    share_heaps()
    stop_on_terminate()
    print("Loading the models ...", file=sys.stderr, flush=True)
    engine = Engine(settings)
    engine.load()
    # Requests and their headers are not logged: /metrics counts them, and no key can get into a log.
    config = uvicorn.Config(
        build_server(engine, settings), log_level="warning", access_log=False, timeout_graceful_shutdown=GRACE_SECONDS
    )
    print(f"SAGE serves at http://{settings.host}:{place.getsockname()[1]}", flush=True)
    try:
        uvicorn.Server(config).run(sockets=[place])
    except KeyboardInterrupt:  # uvicorn repeats the signal that it has obeyed
        print("Stopped: what was under way is answered.", file=sys.stderr)


def bound(host: str, port: int) -> socket.socket:
    """A socket at an address; nobody is let in before the models are loaded.

    Raises:
        InputError: the address or port cannot be used.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        made = socket.socket(family)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
        return made
    except (OSError, OverflowError) as error:
        raise InputError(f"The service cannot listen on {host}:{port} ({error}); choose another --port.") from None
