"""The SAGE model in Hugging Face form: adapter, fusion attention, language model."""
