"""Shows: the Gradio application in which people watch an inspection think, teach it facts, rank its answers and keep its
reports, and through which other programs call the same functions (Gradio's API, MCP tools)."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "app": ["build_app", "launch_app"],
        "services.fair_queue": ["FairQueue"],
        "services.engine": ["Engine"],
        "view.report": ["report_html"],
        "services.run_store": ["Run", "RunStore"],
        "services.settings": ["DemoSettings"],
    },
)
