//! Both backends over real graphs: the tests' small ones and the shipped language model.

mod loaded;
mod onnxruntime;
mod onnxruntime_llm;
