//! The preprocess service: Hugging Face tokenizers.
