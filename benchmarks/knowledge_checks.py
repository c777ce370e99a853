"""Figures of the knowledge room's checks: contradictions, orders hidden in documents, sentences that are no facts, kinds.

    python benchmarks/knowledge_checks.py [--json]

The labelled data of tests/data were frozen before the checks were first run on them: 85 pairs of facts, 36
hostile documents (read by the whole ingestion, into a store in a temporary folder), and sentences of manuals and stories.
The 100 sentences below headings (manual_sentences.jsonl) were written, and frozen, after the tags were. Of the 200 sentences as
manuals and the 200 as small models write them, the first of each two was developed on; the rules
for the latter were written by someone who had read both halves.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

DATA = Path(__file__).resolve().parents[1] / "tests" / "data"


def _yaml(name: str) -> Any:
    import yaml

    return yaml.safe_load((DATA / name).read_text(encoding="utf-8"))


def contradictions() -> dict[str, Any]:
    """Precision and recall of `sage_ad.knowledge.text.contradictions.contradiction` on labelled pairs."""
    from sage_ad.knowledge.text.contradictions import contradiction

    pairs = _yaml("contradictions.yaml")
    flagged = [pair for pair in pairs if contradiction(pair["first"], pair["second"])]
    right = sum(pair["label"] == "contradiction" for pair in flagged)
    total = sum(pair["label"] == "contradiction" for pair in pairs)
    return {
        "pairs": len(pairs),
        "contradictory": total,
        "flagged": len(flagged),
        "precision": round(right / len(flagged), 4),
        "recall": round(right / total, 4),
    }


def orders() -> dict[str, Any]:
    """How many hostile sentences are recognised, and how many honest ones (of documents and packs) are taken for them."""
    import yaml

    from sage_ad.knowledge.ingestion.checks import instruction_reason
    from sage_ad.knowledge.store.packs import SHIPPED

    documents = _yaml("hostile_documents.yaml")
    hostile = [text for document in documents for text in document["hostile"]]
    honest = [text for document in documents for text in document["legit"]]
    for path in sorted(SHIPPED.glob("*/facts/*.yaml")):
        honest += [fact["text"] for fact in yaml.safe_load(path.read_text(encoding="utf-8"))]
    found = sum(instruction_reason(text) is not None for text in hostile)
    false = sum(instruction_reason(text) is not None for text in honest)
    return {
        "hostile": len(hostile),
        "recognised": found,
        "recall": round(found / len(hostile), 4),
        "honest": len(honest),
        "honest_refused": false,
    }


def documents() -> dict[str, Any]:
    """Whole documents through the ingestion: what was stored of their hostile and of their honest sentences."""
    from sage_ad.knowledge.facts import normalise_text
    from sage_ad.knowledge.ingestion.pipeline import ingest
    from sage_ad.knowledge.store.fact_store import FactStore
    from sage_ad.knowledge.vectors.embedding import default_embedder

    entries = _yaml("hostile_documents.yaml")
    obeyed = honest = kept = 0
    with tempfile.TemporaryDirectory() as folder:
        store = FactStore.open(Path(folder) / "home", default_embedder())
        for entry in entries:
            path = Path(folder) / f"{entry['id']}.{entry['format']}"
            path.write_text(entry["text"], encoding="utf-8")
            ingest([path], entry["domain"], store)
            stored = " | ".join(normalise_text(fact.text) for fact in store.facts(entry["domain"], source=str(path)))
            obeyed += any(normalise_text(text) in stored for text in entry["hostile"])
            honest += len(entry["legit"])
            kept += sum(normalise_text(text) in stored for text in entry["legit"])
    return {
        "documents": len(entries),
        "documents_with_an_order_stored": obeyed,
        "honest_sentences": honest,
        "honest_sentences_stored": kept,
    }


def ordinary() -> dict[str, Any]:
    """How many sentences that are no facts are dropped."""
    from sage_ad.knowledge.text.classifier import FactClassifier
    from sage_ad.knowledge.vectors.embedding import default_embedder

    embedder = default_embedder()
    texts = _yaml("ordinary_sentences.yaml")
    judgements = FactClassifier.fitted(embedder).judge(texts, embedder.encode(texts))
    dropped = sum(judgement.worth < 0.5 for judgement in judgements)
    return {"sentences": len(texts), "dropped": dropped, "share": round(dropped / len(texts), 4)}


def kinds() -> dict[str, Any]:
    """How many kinds are right on the second of each two sentences in the style of manuals."""
    from sage_ad.knowledge.text.classifier import FactClassifier
    from sage_ad.knowledge.vectors.embedding import default_embedder

    embedder = default_embedder()
    sentences = _yaml("fact_sentences.yaml")[1::2]
    texts = [sentence["text"] for sentence in sentences]
    judgements = FactClassifier.fitted(embedder).judge(texts, embedder.encode(texts))
    facts = [(s["kind"], j) for s, j in zip(sentences, judgements, strict=True) if s["kind"] != "none"]
    others = [j for s, j in zip(sentences, judgements, strict=True) if s["kind"] == "none"]
    return {
        "facts": len(facts),
        "kind_right": round(sum(judgement.kind == kind for kind, judgement in facts) / len(facts), 4),
        "kept": round(sum(judgement.worth >= 0.5 for _, judgement in facts) / len(facts), 4),
        "no_facts": len(others),
        "dropped": round(sum(judgement.worth < 0.5 for judgement in others) / len(others), 4),
    }


def tagged() -> dict[str, Any]:
    """Kind and defects of sentences below the headings of manuals (eight packs), as the ingestion gives them."""
    from sage_ad.knowledge.facts import FactSource
    from sage_ad.knowledge.ingestion.extraction import Candidate, classify
    from sage_ad.knowledge.ingestion.tags import tagger
    from sage_ad.knowledge.store.fact_store import FactStore
    from sage_ad.knowledge.text.classifier import FactClassifier
    from sage_ad.knowledge.vectors.embedding import default_embedder

    embedder = default_embedder()
    rows = [json.loads(line) for line in (DATA / "manual_sentences.jsonl").read_text(encoding="utf-8").splitlines()]
    texts = [row["text"] for row in rows]
    found = [Candidate(row["text"], FactSource(), headings=(row["heading"],)) for row in rows]
    judged = classify(found, FactClassifier.fitted(embedder).judge(texts, embedder.encode(texts)))
    with tempfile.TemporaryDirectory() as folder:
        packs = FactStore.open(Path(folder), embedder).packs()
    names = [set(tagger(packs[row["domain"]])(row["text"], [row["heading"]])[1]) for row in rows]
    gold = [set(row["defects"]) for row in rows]
    pairs = list(zip(names, gold, strict=True))
    return {
        "sentences": len(rows),
        "kind_right": round(sum(one.kind == row["kind"] for one, row in zip(judged, rows, strict=True)) / len(rows), 4),
        "defects_right": round(sum(own == right for own, right in pairs) / len(rows), 4),
        "tag_precision": round(sum(len(own & right) for own, right in pairs) / sum(map(len, names)), 4),
        "tag_recall": round(sum(len(own & right) for own, right in pairs) / sum(map(len, gold)), 4),
    }


def written() -> dict[str, Any]:
    """Precision and recall of what is refused of a small model's sentences (the second of each two), by reason."""
    from sage_ad.knowledge.facts import Fact, FactSource
    from sage_ad.knowledge.ingestion.checks import check_facts
    from sage_ad.knowledge.store.fact_store import FactStore
    from sage_ad.knowledge.vectors.embedding import default_embedder

    sentences = _yaml("model_sentences.yaml")[1::2]
    source = FactSource(model="small", extractor="benchmark")
    facts = [Fact(text=s["text"], domain="general", kind="appearance", sources=(source,)) for s in sentences]
    with tempfile.TemporaryDirectory() as folder:
        results = check_facts(facts, FactStore.open(Path(folder), default_embedder()))
    refused = [result.outcome == "not-a-fact" for result in results]
    right = sum(not s["ok"] for s, is_refused in zip(sentences, refused, strict=True) if is_refused)
    shares = {}
    for why in sorted({s["why"] for s in sentences if not s["ok"]}):
        of_kind = [is_refused for s, is_refused in zip(sentences, refused, strict=True) if s.get("why") == why]
        shares[why.replace("-", "_")] = f"{sum(of_kind)}/{len(of_kind)}"
    return {
        "sentences": len(sentences),
        "precision": round(right / sum(refused), 4),
        "recall": round(right / sum(not s["ok"] for s in sentences), 4),
        **shares,
    }


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    wanted = parser.parse_args()
    result = {
        "contradictions": contradictions(),
        "orders": orders(),
        "hostile_documents": documents(),
        "ordinary_sentences": ordinary(),
        "kinds_in_manuals": kinds(),
        "kinds_and_tags_below_headings": tagged(),
        "sentences_of_small_models": written(),
    }
    if wanted.json:
        print(json.dumps(result, indent=2))
        return
    for name, figures in result.items():
        print(f"{name}: " + ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in figures.items()))


if __name__ == "__main__":
    main()
