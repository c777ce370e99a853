"""Knows: facts with their provenance, sentence embedding, the FAISS fact store behind llama-index, retrieval,
ingestion of documents and the domain packs."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "checks": ["CheckedFact", "check_facts", "instruction_reason", "quote_fact"],
        "embedding": ["SentenceEmbedder", "default_embedder"],
        "facts": ["KINDS", "STATUSES", "Fact", "FactLocation", "FactSource", "fact_from_record", "fact_id"],
        "ingestion": ["IngestionReport", "ingest"],
        "llama_index_embedding": ["SageEmbedding"],
        "retrieval": ["DomainMatch", "ScoredFact"],
        "vector_store": ["SegmentedVectorStore"],
        "sources": ["remove_source"],
        "store": ["AddReport", "DomainInfo", "FactStore"],
        "writing": ["write_facts"],
    },
)
