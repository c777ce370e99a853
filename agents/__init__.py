"""Acts: the Self-Guided Fact Enhancement agent as a LangGraph graph, and the command that inspects one part with it."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "graph": ["build_graph"],
        "inspector": ["SageInspector"],
        "settings": ["AgentSettings"],
        "workbench": ["Workbench"],
    },
)
