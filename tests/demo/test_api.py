"""The same functions for programs, and what programs may not reach."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
from visitors import EXAMPLES, Server

KEY = "0123456789abcdef" * 2
NAMES = {
    "inspect", "compare", "search_facts", "show_fact", "judge_fact", "edit_fact", "add_documents",
    "domain_statistics", "list_runs", "show_run", "export_run", "rank_answers",
}  # fmt: skip


@pytest.fixture(scope="module")
def client(server: Server) -> Any:
    from gradio_client import Client

    return Client(server.url, verbose=False, httpx_kwargs={"timeout": 120})


@pytest.fixture(scope="module")
def trace(client: Any) -> dict[str, Any]:
    """One inspection through the API, kept under a key."""
    from gradio_client import handle_file

    return client.predict(
        image=handle_file(EXAMPLES / "cell-test.jpg"), references=[handle_file(EXAMPLES / "cell-good-1.jpg")],
        product="solar cell", questions="Is it free of defects?", key=KEY, api_name="/inspect",
    )  # fmt: skip


def test_the_endpoints_are_the_named_ones_and_no_others(client: Any) -> None:
    named = client.view_api(print_info=False, return_format="dict")["named_endpoints"]
    assert {name.strip("/") for name in named} == NAMES


def test_an_inspection_through_the_api(trace: dict[str, Any]) -> None:
    assert trace["verdict"] == "anomalous"
    assert trace["image"] == "cell-test.jpg"
    assert len(trace["answers"]) == 1
    assert trace["answers"][0]["verdict"] is False


def test_without_a_question_the_api_gives_the_explanation(client: Any) -> None:
    from gradio_client import handle_file

    found = client.predict(
        image=handle_file(EXAMPLES / "cell-test.jpg"), references=[handle_file(EXAMPLES / "cell-good-1.jpg")],
        product="solar cell", mm_per_pixel=0.5, api_name="/inspect",
    )  # fmt: skip
    assert found["answers"] == []
    assert found["explanation"].startswith("The solar cell is anomalous")
    assert " mm)" in found["regions"][0]["description"]
    assert found["candidates"] == []  # nothing was taught of solar cells


def test_a_run_is_listed_shown_exported_and_ranked_under_its_key_only(client: Any, trace: dict[str, Any]) -> None:
    assert [run["run"] for run in client.predict(key=KEY, api_name="/list_runs")] == [trace["run"]]
    assert client.predict(run=trace["run"], key=KEY, api_name="/show_run")["verdict"] == "anomalous"
    assert client.predict(run=trace["run"], key=KEY, api_name="/export_run").startswith("<!doctype html>")
    line = client.predict(
        run=trace["run"], question="Is it free of defects?", answers=["No.", "Yes."], key=KEY, api_name="/rank_answers"
    )
    assert line["answers"] == ["No.", "Yes."]
    assert line["rank_source"] == "expert"
    assert client.predict(key="f" * 32, api_name="/list_runs") == []
    with pytest.raises(Exception, match="no such run"):
        client.predict(run=trace["run"], key="f" * 32, api_name="/show_run")


def test_facts_are_searched_judged_and_shown(client: Any) -> None:
    (fact, *_) = client.predict(words="scratch on metal", domain="machining", count=3, api_name="/search_facts")
    assert fact["domain"] == "machining"
    assert client.predict(fact=fact["id"], status="proposed", api_name="/judge_fact")["status"] == "proposed"
    assert client.predict(fact=fact["id"], api_name="/show_fact")["status"] == "proposed"
    assert client.predict(fact=fact["id"], status="approved", api_name="/judge_fact")["status"] == "approved"
    with pytest.raises(Exception, match="no domain named"):
        client.predict(words="x", domain="nowhere", api_name="/search_facts")
    assert {"machining", "general"} <= {row["domain"] for row in client.predict(api_name="/domain_statistics")}


@pytest.mark.parametrize("path", ["/etc/passwd", str(Path(__file__).resolve()), "../../etc/passwd"])
def test_no_path_outside_the_uploads_is_read(server: Server, path: str) -> None:
    assert httpx.get(f"{server.url}/gradio_api/file={path}", timeout=120).status_code in (403, 404)
    # By hand, because Gradio's own client uploads a file that it finds on its side.
    named = {"path": path, "meta": {"_type": "gradio.FileData"}}
    calls = {"inspect": [named, None, "", "", "", True, "", "", None], "add_documents": [[named], "machining", ""]}
    for name, values in calls.items():
        address = f"{server.url}/gradio_api/call/{name}"
        called = httpx.post(address, json={"data": values}, timeout=120)
        if called.status_code == 200:
            events = httpx.get(f"{address}/{called.json()['event_id']}", timeout=120).text
            assert "event: error" in events
            assert "event: complete" not in events


def test_what_the_demo_keeps_is_not_served(server: Server, trace: dict[str, Any]) -> None:
    kept = [path for path in (server.home / "demo").rglob("*") if path.is_file()]
    assert kept
    for path in kept[:5]:
        assert httpx.get(f"{server.url}/gradio_api/file={path}", timeout=120).status_code in (403, 404)


def test_the_same_functions_are_mcp_tools(server: Server) -> None:
    from mcp import ClientSession
    from mcp.client.streamable_http import streamable_http_client

    async def talk() -> tuple[set[str], str]:
        async with (
            streamable_http_client(f"{server.url}/gradio_api/mcp/") as (read, write, _),
            ClientSession(read, write) as session,
        ):
            await session.initialize()
            tools = {tool.name for tool in (await session.list_tools()).tools}
            name = next(tool for tool in tools if tool.endswith("search_facts"))
            found = await session.call_tool(name, {"words": "crack in a solar cell", "count": 2})
            assert not found.isError
            return tools, str(found.content)

    tools, found = asyncio.run(talk())
    assert all(any(tool.endswith(name) for tool in tools) for name in NAMES)
    assert "solar" in found
