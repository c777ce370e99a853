"""The SFE agent as a LangGraph graph.

perceive -> recall -> (questions?) -> (covered?) -> fuse -> answer -> evaluate -> report -> end
                           |              |          ^                    |         ^
                           |              v          |                    v (a failed score, a bounded number of times)
                           |        extract -> review                  extract      |
                           +--------------------------------------------------------+
"""

from __future__ import annotations

from typing import Any

from langgraph.graph import END, START, StateGraph

from sage_ad.agents import nodes
from sage_ad.agents.resources import AgentContext
from sage_ad.agents.state import InspectionState


def after_recall(state: InspectionState) -> str:
    """Without a question the report is all. Facts are written only when recall does not cover the object."""
    if not state["request"]["questions"]:
        return "report"
    return "fuse" if state["covered"] or state["settings"]["facts"] == "none" else "extract"


def after_evaluate(state: InspectionState) -> str:
    """A failing score goes back to extraction while rounds are left."""
    return "extract" if state["retry_reason"] and state["round"] <= state["settings"]["max_rounds"] else "report"


def build_graph(checkpointer: Any = None) -> Any:
    """Compiles the graph.

    Args:
        checkpointer: a LangGraph checkpointer; needed for expert review (`AgentSettings.review`), which interrupts.

    Returns:
        The compiled graph: `graph.stream(state, context=AgentContext(resources), stream_mode=["updates", "custom"])`.
    """
    graph = StateGraph(InspectionState, context_schema=AgentContext)
    for name in ("perceive", "recall", "extract", "review", "fuse", "answer", "evaluate", "report"):
        graph.add_node(name, getattr(nodes, name))
    graph.add_edge(START, "perceive")
    graph.add_edge("perceive", "recall")
    graph.add_conditional_edges("recall", after_recall, ["fuse", "extract", "report"])
    graph.add_edge("extract", "review")
    graph.add_edge("review", "fuse")
    graph.add_edge("fuse", "answer")
    graph.add_edge("answer", "evaluate")
    graph.add_conditional_edges("evaluate", after_evaluate, ["extract", "report"])
    graph.add_edge("report", END)
    return graph.compile(checkpointer=checkpointer, name="sage")
