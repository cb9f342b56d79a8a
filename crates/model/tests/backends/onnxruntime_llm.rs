//! The backend `onnxruntime_llm`.
