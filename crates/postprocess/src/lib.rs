//! The postprocess service: detokenizer, pooling, classifier.
