//! The model service: ONNX Runtime models and decoders.
