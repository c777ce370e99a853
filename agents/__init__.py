"""Acts: the Self-Guided Fact Enhancement agent as a LangGraph graph, and the commands that inspect one part with it, or many."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "batch.run": ["BatchSettings", "run_batch"],
        "batch.manifest": ["read_parts"],
        "graph": ["build_graph"],
        "inspector": ["SageInspector"],
        "settings": ["AgentSettings"],
        "resources": ["Resources"],
    },
)
