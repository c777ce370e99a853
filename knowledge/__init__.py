"""Facts with their provenance, sentence embedding, the FAISS fact store behind llama-index, retrieval,
ingestion of documents and the domain packs."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "ingestion.checks": ["CheckedFact", "check_facts", "instruction_reason", "quote_fact"],
        "vectors.embedding": ["SentenceEmbedder", "default_embedder"],
        "facts": ["KINDS", "STATUSES", "Fact", "FactLocation", "FactSource", "fact_from_record", "fact_id"],
        "ingestion.pipeline": ["IngestionReport", "ingest"],
        "adapters.llama_index_embedding": ["SageEmbedding"],
        "store.cards": ["DefectCard"],
        "store.product_match": ["DomainMatch"],
        "store.retrieval": ["ScoredFact"],
        "adapters.llama_index_store": ["SageVectorStore"],
        "store.sources": ["remove_source"],
        "store.fact_store": ["AddReport", "DomainInfo", "FactStore"],
        "ingestion.writing": ["write_facts"],
    },
)
