"""Puts the tabs into one page and serves it, with what keeps strangers apart and the host safe."""

from __future__ import annotations

import atexit
import contextlib
import os
import secrets
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sage_ad.demo.services.settings import DemoSettings
from sage_ad.vlm.errors import InputError

if TYPE_CHECKING:
    import gradio as gr

    from sage_ad.demo.services.engine import Engine

TITLE = "SAGE: explainable visual inspection"
FOLDER = Path(__file__).parent
TEAL = (
    "#eef8f8", "#d5eef0", "#abdde1", "#79c5cc", "#4cb0b9", "#0f7f8b", "#0f6e78", "#0c5a62", "#0a464d", "#083338", "#052024",
)  # fmt: skip
"""The page's one colour from light to dark, as Gradio's themes want it."""


UPLOADS = "sage-demo-uploads-"


def own_upload_folder() -> Path:
    """A folder for this server's uploads that no other user of the machine can read; gone when the server ends.

    What servers left behind that were killed (SIGKILL, a power cut) is deleted: their number stands in the name.
    """
    for left in Path(tempfile.gettempdir()).glob(f"{UPLOADS}*"):
        number = left.name.removeprefix(UPLOADS).partition("-")[0]
        if number.isdigit() and not is_running(int(number)):
            shutil.rmtree(left, ignore_errors=True)  # another user's folder cannot be deleted, and is none of ours
    folder = Path(tempfile.mkdtemp(prefix=f"{UPLOADS}{os.getpid()}-"))
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def is_running(process: int) -> bool:
    """Whether there is a process of this number."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # another user's
    return True


def keep_tidy(seconds: float) -> None:
    """Deletes prepared downloads (reports, rankings) that are older than this, from now on, beside what Gradio deletes."""
    from sage_ad.demo.view.report import delete_downloads

    def sweep() -> None:
        while True:
            time.sleep(min(seconds, 300))
            delete_downloads(seconds)

    threading.Thread(target=sweep, name="tidy", daemon=True).start()


def browser_secret(home: Path) -> str:
    """The key under which browsers keep their own secret; made once, so that a restart does not lose past runs."""
    path = home / "browser-key"
    try:
        return path.read_text(encoding="ascii")
    except FileNotFoundError:
        home.mkdir(parents=True, exist_ok=True)
        key = secrets.token_hex(16)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as stream:
            stream.write(key)
        return key


def build_app(engine: Engine) -> gr.Blocks:
    """The page, ready to be launched."""
    import gradio as gr

    from sage_ad.demo.api import add_endpoints
    from sage_ad.demo.services.safety import is_token
    from sage_ad.demo.tabs.compare import CompareTab
    from sage_ad.demo.tabs.folder import FolderTab
    from sage_ad.demo.tabs.inspect import InspectTab
    from sage_ad.demo.tabs.knowledge import KnowledgeTab
    from sage_ad.demo.tabs.rank import RankTab
    from sage_ad.demo.tabs.runs import RunsTab

    settings = engine.settings
    age = settings.keep_minutes * 60
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(min(age, 300), age), fill_width=True) as app:
        add_endpoints(engine)  # first, so that the public names are theirs and not those of the page's own events
        # Without a login, a secret in the browser's own storage is what makes past runs one's own.
        token = gr.BrowserState("", storage_key="sage-demo", secret=browser_secret(settings.home))
        app.load(lambda kept: kept if is_token(kept) else secrets.token_hex(16), token, token, api_visibility="private")
        gr.HTML("<header class='sg-top'><h1>SAGE</h1><p>Looks at a part, says what it finds, shows why.</p></header>")
        with gr.Tabs(elem_id="tabs"):
            with gr.Tab("Inspect", id="inspect"):
                inspect = InspectTab(engine, token)
            with gr.Tab("Folder", id="folder"):
                FolderTab(engine, token)
            with gr.Tab("Compare", id="compare"):
                CompareTab(engine, token)
            with gr.Tab("Knowledge", id="knowledge") as knowledge:
                KnowledgeTab(engine, token, knowledge)
            with gr.Tab("Rank", id="rank") as rank:
                RankTab(engine, token, rank, inspect.run)
            with gr.Tab("Runs", id="runs") as runs:
                RunsTab(engine, token, runs)
    return app


def theme() -> Any:
    """Gradio's plain theme in the page's colours; fonts of the system, so that nothing is fetched from elsewhere."""
    import gradio as gr

    fonts = ("system-ui", "sans-serif")
    mono = ("ui-monospace", "monospace")
    teal = gr.themes.Color(*TEAL, name="teal")
    return gr.themes.Base(primary_hue=teal, neutral_hue="stone", font=fonts, font_mono=mono, radius_size="lg").set(
        body_background_fill="#f6f6f3",
        body_background_fill_dark="#121518",
        block_background_fill="#ffffff",
        block_background_fill_dark="#1a1e22",
        block_border_color="#e3e3dd",
        block_border_color_dark="#2d333a",
        border_color_primary="#e3e3dd",
        border_color_primary_dark="#2d333a",
        input_background_fill="#fbfbf9",
        input_background_fill_dark="#14181b",
        input_border_width="1px",
        input_border_color="#e3e3dd",
        input_border_color_dark="#2d333a",
        checkbox_label_background_fill="#fbfbf9",
        checkbox_label_background_fill_dark="#14181b",
        checkbox_label_border_width="1px",
        checkbox_label_border_color="#e3e3dd",
        checkbox_label_border_color_dark="#2d333a",
        button_secondary_background_fill="#ebebe6",
        button_secondary_background_fill_hover="#e0e0da",
        button_secondary_background_fill_dark="#2a3036",
        button_cancel_background_fill="#f3e3de",
        button_cancel_background_fill_hover="#ecd3cb",
        button_cancel_background_fill_dark="#3a2620",
        button_cancel_text_color="#b93a1e",
        button_cancel_text_color_dark="#ff8a6b",
        background_fill_primary="#ffffff",
        background_fill_primary_dark="#1a1e22",
        background_fill_secondary="#f6f6f3",
        background_fill_secondary_dark="#16191d",
        button_primary_background_fill="#0f6e78",
        button_primary_background_fill_hover="#0c5a62",
        button_primary_background_fill_dark="#13808b",
        button_primary_text_color="#ffffff",
        link_text_color="#0f6e78",
        link_text_color_hover="#0c5a62",
        link_text_color_visited="#0f6e78",
        link_text_color_dark="#4cc3cf",
        link_text_color_hover_dark="#79c5cc",
        link_text_color_visited_dark="#4cc3cf",
        slider_color="#0f6e78",
        slider_color_dark="#4cc3cf",
        block_label_background_fill="#ffffff",
        block_label_background_fill_dark="#1a1e22",
    )


def launch_app(settings: DemoSettings, block: bool = True) -> tuple[gr.Blocks, Engine]:
    """Serves the demo.

    Args:
        settings: how.
        block: wait until the server ends; else return at once and let it run in its thread.

    Raises:
        InputError: the address or port cannot be used.
        SageError: the model cannot be loaded.
    """
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    uploads = own_upload_folder()
    try:
        import gradio as gr
    except ImportError:
        raise InputError("The demo needs Gradio, which is not installed; run: pip install 'sage-ad[demo]'.") from None

    from sage_ad.demo.services.engine import Engine
    from sage_ad.demo.tabs.widgets import examples
    from sage_ad.demo.view.render import page_style

    print("Loading the models ...", file=sys.stderr, flush=True)
    engine = Engine(settings)
    engine.load()
    app = build_app(engine)
    app.queue(default_concurrency_limit=40, max_size=400, api_open=True)
    try:
        # Gradio announces its MCP server on standard output; ours is for the addresses alone.
        with contextlib.redirect_stdout(sys.stderr):
            app.launch(
                server_name=settings.host,
                server_port=settings.port or None,
                share=settings.share,
                auth=(settings.user, settings.password) if settings.user and settings.password else None,
                mcp_server=settings.mcp,
                prevent_thread_lock=True,
                quiet=True,
                show_error=False,  # an unexpected error may name files of the server; ours say one sentence anyway
                ssr_mode=False,
                strict_cors=True,
                enable_monitoring=False,
                max_threads=80,
                max_file_size=settings.max_megabytes * 2**20,
                allowed_paths=sorted({str(example.part.parent) for example in examples()}),
                blocked_paths=[str(settings.home.parent)],
                footer_links=["api"],
                theme=theme(),
                head=f"<style>{page_style()}</style><script>{(FOLDER / 'page.js').read_text(encoding='utf-8')}</script>",
            )
    except OSError as error:
        raise InputError(
            f"The demo cannot listen on {settings.host}:{settings.port} ({one_line(error)}); choose another --port."
        ) from None
    keep_tidy(settings.keep_minutes * 60)
    address = (app.local_url or "").rstrip("/")
    print(f"SAGE is at {address}" + (f" and {app.share_url}" if app.share_url else ""), flush=True)
    if settings.mcp:
        print(f"MCP tools are at {address}/gradio_api/mcp/", flush=True)
    if block:
        try:
            threading.Event().wait()  # until Ctrl-C or SIGTERM
        finally:
            # An open page holds its connections for good; they are cut, and what is being inspected is given up.
            app.server.config.timeout_graceful_shutdown = 1
            app.close(verbose=False)
            shutil.rmtree(uploads, ignore_errors=True)
    assert isinstance(app, gr.Blocks)
    return app, engine


def one_line(error: BaseException) -> str:
    """The first line of an error's text."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
